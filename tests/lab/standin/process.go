package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"
	"go.uber.org/zap"
	"k8s.io/klog/v2"
)

// shuttingDown is set once a signal asked the process to end, so that late failures do not spoil the 0.
var shuttingDown atomic.Bool

// fatal logs the error as K3s does and ends the process with 1.
func fatal(err error) {
	if shuttingDown.Load() {
		select {}
	}
	stopSimulator()
	logrus.Fatalf("Error: %v", err)
}

func helpAsked(err error) bool { return errors.Is(err, flag.ErrHelp) }

// notifySocket is kept away from the linked API server, which would notify READY too early.
var notifySocket = os.Getenv("NOTIFY_SOCKET")

func notifyReady() {
	if notifySocket == "" {
		return
	}
	os.Setenv("NOTIFY_SOCKET", notifySocket)
	if _, err := daemon.SdNotify(true, daemon.SdNotifyReady); err != nil {
		logrus.Warnf("Failed to notify systemd: %v", err)
	}
}

//go:linkname apiserverEtcdLogger k8s.io/apiserver/pkg/storage/storagebackend/factory.etcd3ClientLogger
var apiserverEtcdLogger *zap.Logger

// setUpLogging sends K3s' own lines to standard error; the components are silent unless they end the process.
func setUpLogging() {
	os.Unsetenv("NOTIFY_SOCKET")
	apiserverEtcdLogger = zap.NewNop() // it would report each retry of a feature check
	logrus.SetOutput(os.Stderr)
	klog.SetOutput(io.Discard)
	set := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(set)
	set.Set("logtostderr", "false")
	set.Set("stderrthreshold", "FATAL")
	klog.OsExit = func(code int) {
		if shuttingDown.Load() {
			code = 0
		} else {
			logrus.Errorf("A Kubernetes component ended the process with %d: leader election lost", code)
		}
		stopSimulator()
		os.Exit(code)
	}
}

// startUp does what both roles do first.
func startUp(o *options) {
	if o.flag("debug") {
		logrus.SetLevel(logrus.DebugLevel)
	}
	if path := o.text("log"); path != "" {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0600)
		if err != nil {
			fatal(err)
		}
		if o.flag("alsologtostderr") {
			logrus.SetOutput(io.MultiWriter(file, os.Stderr))
		} else {
			logrus.SetOutput(file)
		}
	}
	if err := unpack(paths{o.text("data-dir")}); err != nil {
		fatal(err)
	}
	logrus.Infof("Starting k3s %s (%s)", version, commit())
	logrus.Infof("This is the lab's stand-in for K3s: the control plane is real, containers are simulated")
	if text := os.Getenv(envFail); text != "" {
		fatal(errors.New(text))
	}
}

// hideArguments shortens the process title to the command, so that no token shows up in ps. The strings
// of os.Args lie in the kernel's argument area, one after the other.
func hideArguments(command string) {
	title := strings.Clone(os.Args[0]) + " " + command
	length := 0
	for _, arg := range os.Args {
		length += len(arg) + 1
	}
	area := unsafe.Slice(unsafe.StringData(os.Args[0]), length-1)
	os.Args = []string{strings.Clone(os.Args[0]), command}
	for i := range area {
		area[i] = 0
	}
	copy(area, title[:min(len(title), len(area))])
}

func timeID() string { return fmt.Sprint(time.Now().Unix()) }
