package main

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/robfig/cron/v3"
	"github.com/sirupsen/logrus"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// snapshotRequest is the body of POST /db/snapshot (k3s.md §5.4).
type snapshotRequest struct {
	Operation string   `json:"operation"`
	Name      []string `json:"name"`
	Dir       string   `json:"dir"`
	Compress  bool     `json:"compress"`
	Retention int      `json:"retention"`
}

// snapshotResult is the answer to save, prune and delete.
type snapshotResult struct {
	Created []string `json:"created"`
	Deleted []string `json:"deleted"`
}

// snapshotFile and snapshotList are shaped like K3s' ETCDSnapshotFile resources.
type snapshotFile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              snapshotSpec   `json:"spec"`
	Status            snapshotStatus `json:"status"`
}

type snapshotSpec struct {
	SnapshotName string            `json:"snapshotName"`
	NodeName     string            `json:"nodeName"`
	Location     string            `json:"location"`
	Metadata     map[string]string `json:"metadata,omitempty"`
}

type snapshotStatus struct {
	Size         *resource.Quantity `json:"size,omitempty"`
	CreationTime *metav1.Time       `json:"creationTime,omitempty"`
	ReadyToUse   *bool              `json:"readyToUse,omitempty"`
}

type snapshotList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []snapshotFile `json:"items"`
}

var savingSnapshot sync.Mutex

// snapshot answers POST /db/snapshot.
func (f *front) snapshot(w http.ResponseWriter, r *http.Request) {
	var request snapshotRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		sendError(w, r, http.StatusBadRequest, err.Error())
		return
	}
	if f.s.store.member == nil || f.s.store.client == nil {
		sendError(w, r, http.StatusBadRequest, "etcd datastore disabled")
		return
	}
	ctx, cancel := withTimeout(r)
	defer cancel()
	dir, err := f.s.snapshotDir(request.Dir)
	if err == nil {
		var answer any
		if answer, err = f.s.snapshotOperation(ctx, dir, request); err == nil {
			sendJSON(w, r, answer, nil)
			return
		}
	}
	sendHidden(w, r, "etcd-snapshot", err)
}

func (s *server) snapshotOperation(ctx context.Context, dir string, request snapshotRequest) (any, error) {
	base := "on-demand"
	if len(request.Name) > 0 && request.Name[0] != "" {
		base = request.Name[0]
	}
	switch request.Operation {
	case "save":
		name, err := s.saveSnapshot(ctx, dir, base, request.Compress || s.c.flag("etcd-snapshot-compress"))
		if err != nil || name == "" {
			return snapshotResult{}, err
		}
		return snapshotResult{Created: []string{name}}, nil
	case "list":
		return s.listSnapshots(dir)
	case "delete":
		return deleteSnapshots(dir, request.Name)
	case "prune":
		return s.pruneSnapshots(dir, base, request.Retention)
	}
	return nil, fmt.Errorf("invalid operation %q", request.Operation)
}

// snapshotDir makes the default directory; another one must exist.
func (s *server) snapshotDir(dir string) (string, error) {
	if dir == "" {
		dir = s.c.text("etcd-snapshot-dir")
	}
	if dir == "" || dir == s.c.db("snapshots") {
		return s.c.db("snapshots"), os.MkdirAll(s.c.db("snapshots"), 0700)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", fmt.Errorf("snapshot directory %s does not exist", dir)
	}
	return dir, nil
}

// saveSnapshot writes <base>-<node>-<unix> from the local member.
func (s *server) saveSnapshot(ctx context.Context, dir, base string, compress bool) (string, error) {
	if !savingSnapshot.TryLock() {
		return "", errors.New("snapshot save already in progress")
	}
	defer savingSnapshot.Unlock()
	if s.store.member.server.Server.IsLearner() {
		logrus.Warn("Unable to take snapshot: not supported for learner")
		return "", nil
	}
	name := fmt.Sprintf("%s-%s-%s", base, s.c.nodeName, timeID())
	path := filepath.Join(dir, name)
	logrus.Infof("Saving etcd snapshot to %s", path)
	stream, err := s.store.client.Snapshot(ctx)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	partial, err := os.OpenFile(path+".part", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0600)
	if err != nil {
		return "", err
	}
	defer os.Remove(path + ".part")
	if compress {
		name, path = name+".zip", path+".zip"
		err = zipInto(partial, strings.TrimSuffix(name, ".zip"), stream)
	} else {
		_, err = io.Copy(partial, stream)
	}
	if err == nil {
		err = partial.Sync()
	}
	if closeErr := partial.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return "", err
	}
	return name, os.Rename(partial.Name(), path)
}

func zipInto(target io.Writer, name string, content io.Reader) error {
	archive := zip.NewWriter(target)
	entry, err := archive.Create(name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(entry, content); err != nil {
		return err
	}
	return archive.Close()
}

// unzipSnapshot unpacks a compressed snapshot beside itself and returns the plain file.
func unzipSnapshot(path string) (string, error) {
	archive, err := zip.OpenReader(path)
	if err != nil {
		return "", err
	}
	defer archive.Close()
	if len(archive.File) != 1 {
		return "", fmt.Errorf("%s is not a compressed snapshot", path)
	}
	content, err := archive.File[0].Open()
	if err != nil {
		return "", err
	}
	defer content.Close()
	plain := strings.TrimSuffix(path, ".zip")
	file, err := os.OpenFile(plain, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0600)
	if err != nil {
		return "", err
	}
	defer file.Close()
	_, err = io.Copy(file, content)
	return plain, err
}

// localSnapshots lists the files of a directory, oldest first.
func localSnapshots(dir string) ([]os.FileInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []os.FileInfo
	for _, entry := range entries {
		info, err := entry.Info()
		if err == nil && info.Mode().IsRegular() && !strings.HasSuffix(info.Name(), ".part") {
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b os.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	return files, nil
}

func (s *server) listSnapshots(dir string) (*snapshotList, error) {
	list := &snapshotList{TypeMeta: metav1.TypeMeta{APIVersion: "k3s.cattle.io/v1", Kind: "ETCDSnapshotFileList"},
		Items: []snapshotFile{}}
	files, err := localSnapshots(dir)
	if err != nil {
		return nil, err
	}
	for _, info := range files {
		ready, created := true, metav1.NewTime(info.ModTime().UTC())
		list.Items = append(list.Items, snapshotFile{
			TypeMeta:   metav1.TypeMeta{APIVersion: "k3s.cattle.io/v1", Kind: "ETCDSnapshotFile"},
			ObjectMeta: metav1.ObjectMeta{Name: "local-" + info.Name() + "-" + sha256Hex([]byte(s.c.nodeName + info.Name()))[:6]},
			Spec: snapshotSpec{SnapshotName: info.Name(), NodeName: s.c.nodeName,
				Location: "file://" + filepath.Join(dir, info.Name())},
			Status: snapshotStatus{Size: resource.NewQuantity(info.Size(), resource.DecimalSI), CreationTime: &created,
				ReadyToUse: &ready}})
	}
	return list, nil
}

func deleteSnapshots(dir string, names []string) (snapshotResult, error) {
	var result snapshotResult
	for _, name := range names {
		if name != filepath.Base(name) {
			continue
		}
		err := os.Remove(filepath.Join(dir, name))
		if err == nil {
			result.Deleted = append(result.Deleted, name)
		} else if !errors.Is(err, os.ErrNotExist) {
			return result, err
		}
	}
	return result, nil
}

// pruneSnapshots keeps the newest snapshots of this node with one base name.
func (s *server) pruneSnapshots(dir, base string, keep int) (snapshotResult, error) {
	var result snapshotResult
	if keep < 1 {
		return result, nil
	}
	files, err := localSnapshots(dir)
	if err != nil {
		return result, err
	}
	files = slices.DeleteFunc(files, func(info os.FileInfo) bool {
		return !strings.HasPrefix(info.Name(), base+"-"+s.c.nodeName+"-")
	})
	for len(files) > keep {
		if err := os.Remove(filepath.Join(dir, files[0].Name())); err != nil {
			return result, err
		}
		result.Deleted = append(result.Deleted, files[0].Name())
		files = files[1:]
	}
	return result, nil
}

// snapshotSchedule takes the snapshots of etcd-snapshot-schedule-cron.
func (s *server) snapshotSchedule(ctx context.Context) {
	if s.c.flag("etcd-disable-snapshots") {
		return
	}
	schedule, err := cron.ParseStandard(s.c.text("etcd-snapshot-schedule-cron"))
	if err != nil {
		fatal(fmt.Errorf("etcd-snapshot-schedule-cron: %w", err))
	}
	for {
		if sleep(ctx, time.Until(schedule.Next(time.Now()))) != nil {
			return
		}
		dir, err := s.snapshotDir("")
		base := s.c.text("etcd-snapshot-name")
		if err == nil {
			_, err = s.saveSnapshot(ctx, dir, base, s.c.flag("etcd-snapshot-compress"))
		}
		if err == nil {
			_, err = s.pruneSnapshots(dir, base, s.c.number("etcd-snapshot-retention"))
		}
		if err != nil {
			logrus.Errorf("Failed to take etcd snapshot: %v", err)
		}
	}
}
