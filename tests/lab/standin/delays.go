package main

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"sigs.k8s.io/yaml"
)

// delays is the lab's file of fixed delays, so that waiting and ordering can be measured. It is read again
// whenever it changes.
type delays struct {
	mutex    sync.Mutex
	files    []string
	modified time.Time
	delayFile
}

// delayFile is the content of the file.
type delayFile struct {
	// Rollout is the time in seconds from the binding of a pod until it is Ready, by <namespace>/<workload>.
	Rollout map[string]float64 `json:"rollout"`
	// Conditions is the time in seconds until an object gets its status, by kind.
	Conditions map[string]float64 `json:"conditions"`
	// Off names operators that are not simulated, because a real one runs.
	Off []string `json:"off"`
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
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for _, file := range d.files {
		info, err := os.Stat(file)
		if err != nil {
			continue
		}
		if info.ModTime().Equal(d.modified) {
			return
		}
		fresh := delayFile{}
		data, err := os.ReadFile(file)
		if err == nil {
			err = yaml.UnmarshalStrict(data, &fresh)
		}
		if err != nil {
			logrus.Warnf("stand-in: %s: %v", file, err)
			fresh = delayFile{}
		}
		d.delayFile, d.modified = fresh, info.ModTime()
		return
	}
	d.delayFile, d.modified = delayFile{}, time.Time{}
}

// isOff tells whether an operator is not simulated.
func (d *delays) isOff(operator string) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return slices.Contains(d.Off, operator)
}

// rollout is the delay of a workload's pods.
func (d *delays) rollout(namespace, workload string) time.Duration {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	value, found := d.Rollout[namespace+"/"+workload]
	if !found {
		value = d.Rollout["default"]
	}
	return seconds(value)
}

// condition is the delay until an object of a kind gets its status.
func (d *delays) condition(kind string) time.Duration {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	value, found := d.Conditions[kind]
	if !found {
		value = d.Conditions["default"]
	}
	return seconds(value)
}

func seconds(value float64) time.Duration { return time.Duration(value * float64(time.Second)) }
