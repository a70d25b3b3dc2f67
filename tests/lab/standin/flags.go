package main

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

//go:embed flags.yaml
var flagsYAML []byte

// flagSpec is one flag of a K3s command.
type flagSpec struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Aliases []string `json:"aliases"`
	Default string   `json:"default"`
	Env     string   `json:"env"`
	Since   string   `json:"since"`
}

// flagTable is the content of flags.yaml.
type flagTable struct {
	Server       []flagSpec `json:"server"`
	Agent        []flagSpec `json:"agent"`
	EtcdSnapshot []flagSpec `json:"etcd-snapshot"`
	Critical     []struct {
		Field    string `json:"field"`
		Reported string `json:"reported"`
	} `json:"critical"`
	Items []string `json:"items"`
}

var knownFlags = loadFlagTable()

func loadFlagTable() flagTable {
	var table flagTable
	if err := yaml.Unmarshal(flagsYAML, &table); err != nil {
		panic(err)
	}
	return table
}

// flagsOf lists the flags that a command has in this version.
func flagsOf(command string) []flagSpec {
	specs := map[string][]flagSpec{
		"server": knownFlags.Server, "agent": knownFlags.Agent, "etcd-snapshot": knownFlags.EtcdSnapshot,
	}[command]
	return slices.DeleteFunc(slices.Clone(specs), func(f flagSpec) bool { return !releasedIn(f.Since) })
}

// flagValue gathers the occurrences of one flag; it implements flag.Value.
type flagValue struct {
	spec  flagSpec
	items []string
}

func (v *flagValue) String() string   { return strings.Join(v.items, ",") }
func (v *flagValue) IsBoolFlag() bool { return v.spec.Type == "bool" }

// Set checks the text against the flag's type with the words of Go's flag package, which K3s' own
// command line library rests on.
func (v *flagValue) Set(text string) error {
	var err error
	switch v.spec.Type {
	case "bool":
		_, err = strconv.ParseBool(text)
	case "int":
		_, err = strconv.ParseInt(text, 0, 64)
	case "duration":
		_, err = time.ParseDuration(text)
	}
	if err != nil {
		return errors.New("parse error")
	}
	v.items = append(v.items, text)
	return nil
}

// options are the parsed flags of a command.
type options struct {
	command string
	values  map[string]*flagValue
	args    []string
}

// parseFlags parses arguments strictly: an unknown flag or a wrong type is an error.
func parseFlags(command string, specs []flagSpec, args []string) (*options, error) {
	o := &options{command: command, values: map[string]*flagValue{}}
	set := flag.NewFlagSet(command, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	for _, spec := range specs {
		value := &flagValue{spec: spec}
		o.values[spec.Name] = value
		for _, name := range append([]string{spec.Name}, spec.Aliases...) {
			set.Var(value, name, "")
		}
	}
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	o.args = set.Args()
	for _, value := range o.values {
		if text := os.Getenv(value.spec.Env); len(value.items) == 0 && value.spec.Env != "" && text != "" {
			if err := value.Set(text); err != nil {
				return nil, fmt.Errorf("could not parse %q as %s value from environment variable %q for flag %s: %w",
					text, value.spec.Type, value.spec.Env, value.spec.Name, err)
			}
		}
	}
	return o, nil
}

// given tells whether a flag occurs on the command line, in a file or in the environment.
func (o *options) given(name string) bool {
	v := o.values[name]
	return v != nil && len(v.items) > 0
}

// text returns the last value of a flag, or its default.
func (o *options) text(name string) string {
	v := o.values[name]
	if v == nil {
		return ""
	}
	if len(v.items) == 0 {
		return v.spec.Default
	}
	return v.items[len(v.items)-1]
}

func (o *options) flag(name string) bool {
	b, _ := strconv.ParseBool(o.text(name))
	return b
}

func (o *options) number(name string) int {
	n, _ := strconv.ParseInt(o.text(name), 0, 64)
	return int(n)
}

// list returns all values of a flag as they were given.
func (o *options) list(name string) []string {
	v := o.values[name]
	if v == nil {
		return nil
	}
	if len(v.items) == 0 && v.spec.Default != "" {
		return []string{v.spec.Default}
	}
	return v.items
}

// split returns all values of a flag, each of them split at commas (k3s.md §3.2).
func (o *options) split(name string) []string {
	var all []string
	for _, item := range o.list(name) {
		for _, part := range strings.Split(item, ",") {
			if part = strings.TrimSpace(part); part != "" {
				all = append(all, part)
			}
		}
	}
	return all
}

// usageError prints what K3s' command line library prints and ends the process with 1.
func usageError(command string, specs []flagSpec, err error) {
	fmt.Printf("Incorrect Usage: %s\n\n", err)
	printHelp(command, specs)
	fatal(err)
}

func printHelp(command string, specs []flagSpec) {
	fmt.Printf("NAME:\n   k3s %s\n\nUSAGE:\n   k3s %s [OPTIONS]\n\nOPTIONS:\n", command, command)
	for _, spec := range specs {
		names := "--" + spec.Name
		for _, alias := range spec.Aliases {
			dashes := "--"
			if len(alias) == 1 {
				dashes = "-"
			}
			names += ", " + dashes + alias
		}
		env := ""
		if spec.Env != "" {
			env = " [$" + spec.Env + "]"
		}
		fmt.Printf("   %-44s (%s)%s\n", names, spec.Type, env)
	}
}
