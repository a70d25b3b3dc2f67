package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sirupsen/logrus"
	"sigs.k8s.io/yaml"
)

// snapshotFlags lists the flags of one sub-command of etcd-snapshot.
func snapshotFlags(sub string) []flagSpec {
	specs := flagsOf("etcd-snapshot")
	for i := range specs {
		if specs[i].Name == "snapshot-retention" {
			specs[i].Default = "5"
		}
	}
	if sub == "ls" {
		specs = append(specs, flagSpec{Name: "output", Type: "string", Aliases: []string{"o"}, Default: "table"})
	}
	return specs
}

// snapshotCommand is k3s etcd-snapshot save|ls|delete|prune (k3s.md §5.4).
func snapshotCommand(args []string) {
	sub := ""
	if len(args) > 0 {
		sub, args = args[0], args[1:]
	}
	if sub == "list" || sub == "l" {
		sub = "ls"
	}
	specs := snapshotFlags(sub)
	switch sub {
	case "save", "ls", "delete", "prune":
	default:
		printHelp("etcd-snapshot", specs)
		return
	}
	all, err := commandLine("etcd-snapshot", specs, args)
	if err != nil {
		fatal(err)
	}
	o, err := parseFlags("etcd-snapshot "+sub, specs, all)
	if err != nil {
		usageError("etcd-snapshot "+sub, specs, err)
	}
	if sub == "save" && len(o.args) > 0 {
		usageError("etcd-snapshot save", specs, fmt.Errorf("unexpected arguments: %v", o.args))
	}
	if err := runSnapshotCommand(sub, o); err != nil {
		fatal(err)
	}
}

func runSnapshotCommand(sub string, o *options) error {
	request := snapshotRequest{Operation: sub, Dir: o.text("dir"), Compress: o.flag("snapshot-compress")}
	switch sub {
	case "save":
		request.Name = []string{o.text("name")}
	case "prune":
		request.Name, request.Retention = []string{o.text("name")}, o.number("snapshot-retention")
	case "delete":
		if request.Name = o.args; len(o.args) == 0 {
			return errors.New("no snapshots given for removal")
		}
	case "ls":
		request.Operation = "list"
		switch o.text("output") {
		case "json", "yaml", "table":
		default:
			return fmt.Errorf("invalid output format: %s", o.text("output"))
		}
	}
	dataDir := o.text("data-dir")
	if dataDir == "" {
		dataDir = defaultDataDir
	}
	url := o.text("etcd-server")
	if url == "" {
		url = "https://127.0.0.1:6443"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	connection, err := localSupervisor(ctx, paths{dataDir}, url, o.text("etcd-token"))
	if err != nil {
		return err
	}
	connection.client.Timeout = 2 * time.Minute
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	answer, err := connection.request(ctx, http.MethodPost, "/db/snapshot", nil, body)
	if err != nil {
		if strings.Contains(err.Error(), "error ID") {
			return fmt.Errorf("see server log for details: %w", err)
		}
		return err
	}
	if sub == "ls" {
		return printSnapshots(answer, o.text("output"))
	}
	return reportSnapshots(sub, request.Name, answer)
}

func reportSnapshots(sub string, names []string, answer []byte) error {
	var result snapshotResult
	if err := json.Unmarshal(answer, &result); err != nil {
		return err
	}
	for _, name := range result.Created {
		logrus.Infof("Snapshot %s saved.", name)
	}
	gone := map[string]bool{}
	for _, name := range result.Deleted {
		gone[name] = true
		logrus.Infof("Snapshot %s deleted.", name)
	}
	for _, name := range names {
		if sub == "delete" && !gone[name] {
			logrus.Warnf("Snapshot %s not found.", name)
		}
	}
	return nil
}

func printSnapshots(answer []byte, format string) error {
	switch format {
	case "json":
		fmt.Println(strings.TrimSpace(string(answer)))
		return nil
	case "yaml":
		text, err := yaml.JSONToYAML(answer)
		fmt.Print(string(text))
		return err
	}
	var list snapshotList
	if err := json.Unmarshal(answer, &list); err != nil {
		return err
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprintln(out, "Name\tLocation\tSize\tCreated")
	for _, item := range list.Items {
		fmt.Fprintf(out, "%s\t%s\t%d\t%s\n", item.Spec.SnapshotName, item.Spec.Location, item.Status.Size.Value(),
			item.Status.CreationTime.Format(time.RFC3339))
	}
	return out.Flush()
}
