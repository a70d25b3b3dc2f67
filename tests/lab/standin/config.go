package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sirupsen/logrus"
	yamlv2 "go.yaml.in/yaml/v2"
)

const defaultConfigFile = "/etc/rancher/k3s/config.yaml"

// configEntry is one key of the merged configuration files with its values.
type configEntry struct {
	key    string
	values []string
	isList bool
}

// commandLine returns the arguments of a command with those of the configuration files before them.
// Unknown keys of the file are dropped with a warning for servers and etcd-snapshot, and kept for
// agents, where they then are usage errors (k3s.md §3.1).
func commandLine(command string, specs []flagSpec, args []string) ([]string, error) {
	entries, err := readConfig(configPath(args))
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, spec := range specs {
		known[spec.Name] = true
		for _, alias := range spec.Aliases {
			known[alias] = true
		}
	}
	var all []string
	for _, entry := range entries {
		dashes := "--"
		if len(entry.key) == 1 {
			dashes = "-"
		}
		for _, value := range entry.values {
			if !known[entry.key] && command != "agent" {
				logrus.Warnf("Unknown flag %s%s found in config.yaml, skipping\n", dashes, entry.key)
				continue
			}
			all = append(all, dashes+entry.key+"="+value)
		}
	}
	return append(all, args...), nil
}

func configPath(args []string) string {
	if path := os.Getenv("K3S_CONFIG_FILE"); path != "" {
		return path
	}
	for i, arg := range args {
		name, value, hasValue := strings.Cut(arg, "=")
		if name != "--config" && name != "-config" && name != "-c" && name != "--c" {
			continue
		}
		if hasValue {
			return value
		}
		if i+1 < len(args) {
			return args[i+1]
		}
	}
	return defaultConfigFile
}

// readConfig merges the main file and its drop-ins in byte order of their names; missing files count as
// empty, bad YAML is an error.
func readConfig(path string) ([]configEntry, error) {
	files := []string{path}
	names, err := os.ReadDir(path + ".d")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, name := range names {
		extension := strings.ToLower(filepath.Ext(name.Name()))
		if !name.IsDir() && (extension == ".yaml" || extension == ".yml") {
			files = append(files, filepath.Join(path+".d", name.Name()))
		}
	}
	var merged []configEntry
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var content yamlv2.MapSlice
		if err := yamlv2.Unmarshal(data, &content); err != nil {
			return nil, fmt.Errorf("failed to parse %s: %w", file, err)
		}
		for _, item := range content {
			merged = mergeEntry(merged, item)
		}
	}
	return merged, nil
}

// mergeEntry replaces a key, or appends to it when it is written as "key+".
func mergeEntry(merged []configEntry, item yamlv2.MapItem) []configEntry {
	key, adds := strings.CutSuffix(fmt.Sprint(item.Key), "+")
	entry := configEntry{key: key}
	switch value := item.Value.(type) {
	case nil:
		entry.values = []string{""}
	case []any:
		entry.isList = true
		for _, each := range value {
			entry.values = append(entry.values, scalar(each))
		}
	default:
		entry.values = []string{scalar(value)}
	}
	for i := range merged {
		if merged[i].key != key {
			continue
		}
		if adds {
			entry.values = append(merged[i].values, entry.values...)
			entry.isList = true
		}
		merged[i] = entry
		return merged
	}
	return append(merged, entry)
}

func scalar(value any) string {
	if value == nil {
		return ""
	}
	return fmt.Sprint(value)
}

// findString returns one setting of the configuration file for commands that do not read it otherwise.
func findString(args []string, name, fallback string) string {
	for i, arg := range args {
		key, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") || key != name {
			continue
		}
		if hasValue {
			return value
		}
		if i+1 < len(args) {
			return args[i+1]
		}
	}
	entries, err := readConfig(configPath(args))
	if err != nil {
		fatal(err)
	}
	for _, entry := range entries {
		if entry.key == name && len(entry.values) > 0 {
			return strings.Join(entry.values, ",")
		}
	}
	return fallback
}
