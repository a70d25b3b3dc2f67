package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

// payloadMagic ends a built stand-in: <tar.gz payload> <8 bytes length> <magic>.
const payloadMagic = "K3S-STANDIN-PAYLOAD"

func sleepShort() { time.Sleep(time.Second) }

// unpack lays the programs of this version into data/<hash> at the first run and moves the links current,
// previous and cni, like K3s (k3s.md §6.2, row 47).
func unpack(p paths) error {
	if err := os.MkdirAll(p.data(), 0755); err != nil {
		return err
	}
	if !exists(p.bin(".sha256sums")) {
		if err := unpackLocked(p); err != nil {
			return fmt.Errorf("extracting data: %w", err)
		}
	}
	if current, err := os.Readlink(p.data("current")); err != nil || current != p.data(buildHash) {
		if err == nil {
			if err := relink(current, p.data("previous")); err != nil {
				return err
			}
		}
		if err := relink(p.data(buildHash), p.data("current")); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(p.data("cni"), 0755); err != nil {
		return err
	}
	for _, plugin := range cniPlugins {
		if target, err := os.Readlink(p.data("cni", plugin)); err != nil || target != p.bin("cni") {
			if err := relink(p.bin("cni"), p.data("cni", plugin)); err != nil {
				return err
			}
		}
	}
	return nil
}

var cniPlugins = []string{"bandwidth", "bridge", "cni", "firewall", "flannel", "host-local", "loopback", "portmap"}

func unpackLocked(p paths) error {
	lock, err := os.OpenFile(p.data(".lock"), os.O_CREATE|os.O_RDWR, 0600)
	if err != nil {
		return err
	}
	defer lock.Close()
	logrus.Infof("Acquiring lock file %s", p.data(".lock"))
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	if exists(p.bin(".sha256sums")) {
		return nil
	}
	logrus.Infof("Preparing data dir %s", p.data(buildHash))
	temporary := p.data(buildHash + "-tmp")
	if err := os.RemoveAll(temporary); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(temporary, "bin", "aux"), 0755); err != nil {
		return err
	}
	if err := extractPayload(filepath.Join(temporary, "bin")); err != nil {
		return err
	}
	if err := fillBin(filepath.Join(temporary, "bin")); err != nil {
		return err
	}
	if err := os.RemoveAll(p.data(buildHash)); err != nil {
		return err
	}
	return os.Rename(temporary, p.data(buildHash))
}

// fillBin adds what else K3s has in bin: itself, the multi-call links and the shim that pods run under.
func fillBin(bin string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Link(self, filepath.Join(bin, "k3s")); err != nil {
		if err := copyFile(self, filepath.Join(bin, "k3s")); err != nil {
			return err
		}
	}
	for _, name := range []string{"kubectl", "crictl", "ctr"} {
		if err := os.Symlink("k3s", filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	// Simulated pods need a process only to be found and killed by a reset: sleep under the shim's name.
	if err := copyFile("/bin/sleep", filepath.Join(bin, "containerd-shim-runc-v2")); err != nil {
		logrus.Warnf("stand-in: no shim: %v", err)
	}
	if err := os.WriteFile(filepath.Join(bin, "cni"), []byte("#!/bin/sh\nexit 1\n"), 0755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bin, ".sha256sums"), []byte(buildHash+"  k3s\n"), 0644)
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(target, source); err != nil {
		target.Close()
		return err
	}
	return target.Close()
}

// openPayload finds the payload at the end of the executable.
func openPayload() (io.ReadCloser, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	size, err := self.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	footer := make([]byte, 8+len(payloadMagic))
	if _, err := self.ReadAt(footer, size-int64(len(footer))); err != nil {
		return nil, err
	}
	if string(footer[8:]) != payloadMagic {
		self.Close()
		return nil, errors.New("this k3s was not made by the build script: it carries no node simulator")
	}
	length := int64(binary.BigEndian.Uint64(footer))
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(self, size-int64(len(footer))-length, length), self}, nil
}

func extractPayload(bin string) error {
	payload, err := openPayload()
	if err != nil {
		return err
	}
	defer payload.Close()
	zipped, err := gzip.NewReader(payload)
	if err != nil {
		return err
	}
	archive := tar.NewReader(zipped)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(bin, header.Name)
		if header.Typeflag != tar.TypeReg || strings.Contains(header.Name, "..") {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0755); err != nil {
			return err
		}
		file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, os.FileMode(header.Mode))
		if err != nil {
			return err
		}
		_, err = io.Copy(file, archive)
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return err
		}
	}
}
