// Command k3s is the lab's stand-in for K3s: it links the real kube-apiserver, controller manager,
// scheduler, etcd and kubectl into one process, answers K3s' command line and files, and simulates
// containers and the data plane. README.md lists what is simulated.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	setUpLogging()
	adoptVersion()
	name, args := filepath.Base(os.Args[0]), cloneAll(os.Args[1:])
	if name == "kubectl" || name == "crictl" || name == "ctr" {
		args = append([]string{name}, args...)
	}
	if len(args) == 0 {
		printUsage()
		return
	}
	if strings.HasPrefix(args[0], "-") {
		global(args)
		return
	}
	command, found := commands[args[0]]
	if !found {
		fmt.Fprintf(os.Stdout, "No help topic for '%s'\n", args[0])
		os.Exit(3)
	}
	command(args[1:])
}

// cloneAll copies the arguments, because hideArguments overwrites the originals.
func cloneAll(args []string) []string {
	var copies []string
	for _, arg := range args {
		copies = append(copies, strings.Clone(arg))
	}
	return copies
}

var commands map[string]func([]string)

func init() {
	commands = map[string]func([]string){
		"server": serverCommand, "agent": agentCommand, "kubectl": kubectlCommand, "crictl": crictlCommand,
		"ctr": ctrCommand, "etcd-snapshot": snapshotCommand, "token": tokenCommand,
		"secrets-encrypt": encryptCommand, "certificate": certificateCommand, "check-config": checkConfigCommand,
		"completion": completionCommand, "help": func([]string) { printUsage() },
	}
}

// global handles flags before any command.
func global(args []string) {
	switch args[0] {
	case "--version", "-v":
		printVersion()
	case "--help", "-h":
		printUsage()
	default:
		usageError("", nil, fmt.Errorf("flag provided but not defined: -%s",
			strings.TrimLeft(strings.SplitN(args[0], "=", 2)[0], "-")))
	}
}

func printUsage() {
	fmt.Println("NAME:\n   k3s - Kubernetes, but small and simple (stand-in of the lab)\n\n" +
		"USAGE:\n   k3s [global options] command [command options]\n\nCOMMANDS:\n" +
		"   server           Run management server\n   agent            Run node agent\n" +
		"   kubectl          Run kubectl\n   crictl           Run crictl\n   ctr              Run ctr\n" +
		"   check-config     Run config check\n   token            Manage tokens\n" +
		"   etcd-snapshot    Manage etcd snapshots\n   secrets-encrypt  Control secrets encryption\n" +
		"   certificate      Manage K3s certificates\n   completion       Install shell completion script")
}
