package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/k3s-io/kine/pkg/drivers"
	sqlitedriver "github.com/k3s-io/kine/pkg/drivers/sqlite"
	kineserver "github.com/k3s-io/kine/pkg/server"
	"github.com/sirupsen/logrus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// datastore is what the API server stores in: the embedded etcd, or kine before sqlite.
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
)

func chooseDatastore(c *serverConfig) (datastoreKind, error) {
	switch {
	case hasEtcd(c.paths):
		return etcdExisting, nil
	case c.given("datastore-endpoint"):
		return 0, errors.New("stand-in: an external datastore is not simulated")
	case c.text("server") != "":
		return etcdJoin, nil
	case c.flag("cluster-init"):
		return etcdNew, nil
	}
	return sqlite, nil
}

const kineSocket = "kine.sock"

// startKine serves sqlite as an etcd on server/kine.sock. Like K3s it expects the working directory to be
// server/. Kine's own way to do this links the drivers of all databases, a tenth of the whole program.
func startKine(c *serverConfig) (*datastore, error) {
	if err := os.MkdirAll(c.db(), 0700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	_, backend, err := sqlitedriver.New(ctx, &sync.WaitGroup{}, &drivers.Config{CompactInterval: 5 * time.Minute,
		CompactTimeout: 5 * time.Second, CompactMinRetain: 1000, CompactBatchSize: 1000, PollBatchSize: 500,
		PollInterval: time.Second})
	if err == nil {
		err = backend.Start(ctx)
	}
	var listener net.Listener
	if err == nil {
		os.Remove(kineSocket) // of a process that was killed
		listener, err = net.Listen("unix", kineSocket)
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("building kine: %w", err)
	}
	// The API server asks whether it lives more often than gRPC allows by itself.
	served := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
		MinTime: embed.DefaultGRPCKeepAliveMinTime}))
	kineserver.New(backend, "unix", 5*time.Second, "3.6.11").Register(served)
	go served.Serve(listener)
	endpoints := []string{"unix://" + kineSocket}
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second,
		Logger: zap.NewNop()})
	stop := func() { served.Stop(); cancel() }
	return &datastore{endpoints: endpoints, client: client, stopKine: stop}, err
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
	source, err := startKine(c)
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
