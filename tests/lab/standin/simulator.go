package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"github.com/sirupsen/logrus"
)

// kwok plays kubelet for the pods of one node: bound pods become Running and Ready. Its stages for pods
// come with the build from kwok's own module; more can be laid into agent/etc/standin/stages.
var simulator struct {
	sync.Mutex
	process *os.Process
	stopped bool
}

func startSimulator(n *node, podCIDR string) error {
	args := []string{"--kubeconfig", n.agent("k3scontroller.kubeconfig"), "--manage-single-node", n.nodeName,
		"--cidr", podCIDR, "--node-ip", n.nodeIP, "--node-lease-duration-seconds", "0", "-v", "ERROR"}
	stages, _ := filepath.Glob(n.bin("stages", "*.yaml"))
	extra, _ := filepath.Glob(n.agent("etc", "standin", "stages", "*.yaml"))
	for _, file := range append(stages, extra...) {
		args = append(args, "--config", file)
	}
	log, err := os.OpenFile(n.agent("containerd", "containerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0600)
	if err != nil {
		return err
	}
	started := make(chan error, 1)
	go func() {
		// The kernel ties PDEATHSIG to the thread that started the child, so that thread must live.
		runtime.LockOSThread()
		for {
			command := exec.Command(n.bin("kwok"), args...)
			command.Stdout, command.Stderr = log, log
			command.Env = append(os.Environ(), "GOMAXPROCS=1", "HOME=/nonexistent")
			command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			simulator.Lock()
			if simulator.stopped {
				simulator.Unlock()
				return
			}
			err := command.Start()
			simulator.process = command.Process
			simulator.Unlock()
			select {
			case started <- err:
			default:
			}
			if err != nil {
				return
			}
			err = command.Wait()
			if shuttingDown.Load() {
				return
			}
			logrus.Warnf("stand-in: node simulator ended: %v", err)
			sleepShort()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("%s: %w", n.bin("kwok"), err)
	}
	return nil
}

func stopSimulator() {
	simulator.Lock()
	defer simulator.Unlock()
	simulator.stopped = true
	if simulator.process != nil {
		simulator.process.Kill()
	}
}
