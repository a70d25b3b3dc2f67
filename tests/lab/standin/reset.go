package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
)

const resetDone = "Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. " +
	"Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes"

// clusterReset makes a cluster of one member out of this server's data, or of a snapshot, and ends
// (k3s.md §5.3, §5.5).
func clusterReset(c *serverConfig) error {
	restore := c.text("cluster-reset-restore-path")
	if restore == "" && !hasEtcd(c.paths) {
		return errors.New("cluster-reset was successfully called without any managed etcd data on this server")
	}
	if restore == "" && exists(c.db("reset-flag")) {
		return fmt.Errorf("Managed etcd cluster membership was previously reset, please remove the cluster-reset flag "+
			"and start k3s normally. If you need to perform another cluster reset, you must first manually delete the "+
			"file at %s", c.db("reset-flag"))
	}
	if restore != "" {
		var err error
		if restore, err = checkSnapshot(restore); err != nil {
			return err
		}
	}
	password, err := resetPassword(c)
	if err != nil {
		return err
	}
	source := c.db("etcd", "member", "snap", "db")
	if restore != "" {
		source = restore
	}
	entries, err := bootstrapFromFile(source)
	if err != nil {
		return fmt.Errorf("reading bootstrap data of %s: %w", source, err)
	}
	data, err := chooseBootstrap(entries, password)
	if err != nil {
		return fmt.Errorf("preparing server: failed to bootstrap cluster data: %w", err)
	}
	if err := backupTLS(c.paths); err != nil {
		return err
	}
	if err := data.reconcile(c.paths, restore != ""); err != nil {
		return err
	}
	cas, err := ensureAuthorities(c.paths)
	if err != nil {
		return err
	}
	if err := ensureServerLeafs(c.paths, cas, c); err != nil {
		return err
	}
	return resetMembership(c, restore, password)
}

func checkSnapshot(path string) (string, error) {
	path = strings.TrimPrefix(path, "file://")
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("etcd: snapshot path does not exist: %s", path)
	}
	if info.IsDir() {
		return "", fmt.Errorf("etcd: snapshot path must be a file, not a directory: %s", path)
	}
	if strings.HasSuffix(path, ".zip") {
		return unzipSnapshot(path)
	}
	return path, nil
}

func resetPassword(c *serverConfig) (string, error) {
	if c.token != "" {
		return serverPassword(c.token)
	}
	text, err := readTrimmed(c.server("token"))
	if err != nil {
		return "", err
	}
	return serverPassword(text)
}

func backupTLS(p paths) error {
	if !exists(p.tls()) {
		return nil
	}
	return os.CopyFS(p.server("tls-"+timeID()), os.DirFS(p.tls()))
}

func resetMembership(c *serverConfig, restore, password string) error {
	if restore != "" {
		if err := restoreSnapshot(c, restore); err != nil {
			return err
		}
	} else {
		os.Remove(c.db("etcd", "name"))
	}
	member, err := newMember(c)
	if err != nil {
		return err
	}
	if err := member.start(etcdStart{existing: true, cluster: member.name + "=" + member.peerURL(), resetOnly: true}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := member.waitReady(ctx); err != nil {
		return err
	}
	if _, err := member.client.MemberUpdate(ctx, uint64(member.server.Server.MemberID()), []string{member.peerURL()}); err != nil {
		return err
	}
	if restore != "" {
		// The server's own password Secret is dropped, so that it can register again.
		key := "/registry/secrets/kube-system/" + passwordSecret(c.nodeName)
		if _, err := member.client.Delete(ctx, key); err != nil {
			return err
		}
	}
	if err := saveBootstrap(ctx, member.client, c.paths, password, ""); err != nil {
		return err
	}
	member.close()
	if err := os.WriteFile(c.db("reset-flag"), nil, 0600); err != nil {
		return err
	}
	logrus.Info(resetDone)
	return nil
}

// restoreSnapshot moves the old data away and lets etcd's own tool build a new data directory.
func restoreSnapshot(c *serverConfig, path string) error {
	if exists(c.db("etcd")) {
		if err := os.Rename(c.db("etcd"), c.db("etcd-old-"+timeID())); err != nil {
			return err
		}
	}
	name := c.nodeName + "-" + randomHex(4)
	peer := fmt.Sprintf("https://%s:2380", c.nodeIP)
	err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{SnapshotPath: path, Name: name,
		OutputDataDir: c.db("etcd"), PeerURLs: []string{peer}, InitialCluster: name + "=" + peer,
		InitialClusterToken: "etcd-cluster"})
	if err != nil {
		return err
	}
	if err := os.Chmod(c.db("etcd"), 0700); err != nil {
		return err
	}
	return writeFile(c.db("etcd", "name"), []byte(name), 0600)
}
