package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"
	"sigs.k8s.io/yaml"
)

// delays is the lab's file of fixed delays, so that waiting and ordering can be measured. It is read again
// whenever it changes.
type delays struct {
	// Rollout is the time in seconds from the binding of a pod until it is Ready, by <namespace>/<workload>.
	Rollout map[string]float64 `json:"rollout"`
	// Conditions is the time in seconds until an object gets its status, by kind.
	Conditions map[string]float64 `json:"conditions"`
	// Off names operators that are not simulated, because a real one runs.
	Off []string `json:"off"`

	files    []string
	modified time.Time
}

// standinFolders are where the lab lays files for the simulation: beside K3s' data, else with the host's image.
func standinFolders(p paths) []string {
	return []string{p.agent("etc", "standin"), "/usr/lib/picluster-lab/standin"}
}

func newDelays(p paths) *delays {
	d := &delays{}
	for _, folder := range standinFolders(p) {
		d.files = append(d.files, filepath.Join(folder, "delays.yaml"))
	}
	return d
}

// reload takes the first of the files that is there; a broken one is reported and means no delays.
func (d *delays) reload() {
	for _, file := range d.files {
		info, err := os.Stat(file)
		if err != nil {
			continue
		}
		if info.ModTime().Equal(d.modified) {
			return
		}
		fresh := delays{files: d.files, modified: info.ModTime()}
		data, err := os.ReadFile(file)
		if err == nil {
			err = yaml.UnmarshalStrict(data, &fresh)
		}
		if err != nil {
			logrus.Warnf("stand-in: %s: %v", file, err)
		}
		*d = fresh
		return
	}
	*d = delays{files: d.files}
}

// rollout is the delay of a workload's pods.
func (d *delays) rollout(namespace, workload string) time.Duration {
	value, found := d.Rollout[namespace+"/"+workload]
	if !found {
		value = d.Rollout["default"]
	}
	return seconds(value)
}

// condition is the delay until an object of a kind gets its status.
func (d *delays) condition(kind string) time.Duration {
	value, found := d.Conditions[kind]
	if !found {
		value = d.Conditions["default"]
	}
	return seconds(value)
}

func seconds(value float64) time.Duration { return time.Duration(value * float64(time.Second)) }
