package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/k3s-io/kine/pkg/endpoint"
	"github.com/sirupsen/logrus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// datastore is what the API server stores in: the embedded etcd, or kine before sqlite or an external one.
type datastore struct {
	member    *etcdMember // nil with kine
	endpoints []string
	client    *clientv3.Client
	stopKine  context.CancelFunc
}

// datastoreKind is the choice of k3s.md §5.1.
type datastoreKind int

const (
	etcdExisting datastoreKind = iota
	etcdNew
	etcdJoin
	sqlite
	external
)

func chooseDatastore(c *serverConfig) datastoreKind {
	switch {
	case hasEtcd(c.paths):
		return etcdExisting
	case c.given("datastore-endpoint"):
		return external
	case c.text("server") != "":
		return etcdJoin
	case c.flag("cluster-init"):
		return etcdNew
	}
	return sqlite
}

// startKine serves sqlite (or an external database) as an etcd on server/kine.sock. Like K3s it expects
// the working directory to be server/.
func startKine(c *serverConfig, database string) (*datastore, error) {
	if err := os.MkdirAll(c.db(), 0700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	config, err := endpoint.Listen(ctx, endpoint.Config{Listener: endpoint.KineSocket, Endpoint: database,
		EmulatedETCDVersion: "3.6.11", NotifyInterval: 5 * time.Second, CompactInterval: 5 * time.Minute,
		CompactTimeout: 5 * time.Second, CompactMinRetain: 1000, CompactBatchSize: 1000, PollBatchSize: 500,
		PollInterval: time.Second, LogFormat: "plain"})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("building kine: %w", err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: config.Endpoints, DialTimeout: 5 * time.Second,
		Logger: zap.NewNop()})
	return &datastore{endpoints: config.Endpoints, client: client, stopKine: cancel}, err
}

func (d *datastore) close() {
	if d == nil {
		return
	}
	if d.member != nil && d.member.server != nil {
		d.member.leave()
	}
	if d.stopKine != nil {
		d.stopKine()
		time.Sleep(200 * time.Millisecond)
	}
}

// migrateSqlite copies all keys of sqlite to the new etcd and then renames state.db. A crash in between
// leaves a partial etcd that the next start takes as it is: K3s' trap (k3s.md §5.1).
func migrateSqlite(ctx context.Context, c *serverConfig, target *clientv3.Client) error {
	logrus.Info("Migrating content from sqlite to etcd")
	source, err := startKine(c, "")
	if err != nil {
		return err
	}
	defer source.close()
	values, err := source.client.Get(ctx, "/registry/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	for _, kv := range values.Kvs {
		logrus.Infof("Migrating etcd key %s", kv.Key)
		if _, err := target.Put(ctx, string(kv.Key), string(kv.Value)); err != nil {
			return err
		}
		if pause := os.Getenv("K3S_STANDIN_SLOW_MIGRATION"); pause != "" {
			duration, _ := time.ParseDuration(pause)
			time.Sleep(duration)
		}
	}
	return os.Rename(c.db("state.db"), c.db("state.db.migrated"))
}
