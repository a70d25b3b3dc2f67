package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// checkConfigCommand prints the sections of K3s' script. Only what can be seen without kernel sources is
// checked: programs, the memory cgroup, swap and the key limits.
func checkConfigCommand([]string) {
	failed := 0
	report := func(ok bool, format string, values ...any) {
		word := "good"
		if !ok {
			word = "fail"
			failed++
		}
		fmt.Printf("- %s: %s\n", fmt.Sprintf(format, values...), word)
	}
	fmt.Println("\nVerifying binaries in " + paths{defaultDataDir}.data("current") + "/bin:")
	report(exists(paths{defaultDataDir}.data("current")) || !exists(defaultDataDir), "data dir")
	fmt.Println("\nSystem:")
	_, err := exec.LookPath("iptables")
	report(err == nil, "iptables")
	if swaps, _ := os.ReadFile("/proc/swaps"); strings.Count(string(swaps), "\n") > 1 {
		fmt.Println("- swap: should be disabled")
	} else {
		fmt.Println("- swap: disabled")
	}
	if releasedIn("1.35.0") {
		fmt.Println("\nFirewall:\n- ufw: not active")
	}
	fmt.Println("\nLimits:")
	keys, _ := readTrimmed("/proc/sys/kernel/keys/root_maxkeys")
	report(keys == "" || len(keys) > 5, "/proc/sys/kernel/keys/root_maxkeys: %s", keys)
	fmt.Println("\nGenerally Necessary:")
	report(memoryCgroup(), "cgroup hierarchy")
	fmt.Println("\nOptional Features:\n\nNetwork Drivers:\n\nStorage Drivers:")
	if failed > 0 {
		fmt.Printf("\nSTATUS: %d (fail)\n", failed)
		os.Exit(failed)
	}
	fmt.Println("\nSTATUS: pass")
}

func memoryCgroup() bool {
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err == nil {
		return strings.Contains(string(controllers), "memory")
	}
	return exists("/sys/fs/cgroup/memory")
}

// onlyCertificates is a view of a directory with certificates and keys only, for backups.
func onlyCertificates(dir string) fs.FS { return certificateFS{os.DirFS(dir)} }

type certificateFS struct{ fs.FS }

// ReadDir lists sub-directories of a TLS folder and its certificate files.
func (c certificateFS) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(c.FS, name)
	var kept []fs.DirEntry
	for _, entry := range entries {
		switch extension := filepath.Ext(entry.Name()); {
		case extension == ".crt" || extension == ".key" || extension == ".json":
			kept = append(kept, entry)
		case entry.IsDir() && (entry.Name() == "etcd" || strings.HasPrefix(entry.Name(), "kube-")):
			kept = append(kept, entry)
		}
	}
	return kept, err
}
