package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// server is a running K3s server.
type server struct {
	c      *serverConfig
	cas    *authorities
	store  *datastore
	front  *front
	kube   kubernetes.Interface
	rest   *rest.Config
	secret credentials
	// encryptionHash is the state of the encryption configuration that this process works with.
	encryptionHash atomic.Value
	// joining holds what the first contact with a cluster brought.
	joining *joinTarget
}

// joinTarget is the cluster that a new server joins.
type joinTarget struct{ clientURLs []string }

func serverCommand(args []string) {
	// Servers of several labs share few cores, while memory is there: rarer garbage collections. On one
	// core a server does not wake other threads for each of its many timers, a tenth of what it does.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(600)
	debug.SetMemoryLimit(2 << 30)
	specs := flagsOf("server")
	all, err := commandLine("server", specs, args)
	if err != nil {
		fatal(err)
	}
	o, err := parseFlags("server", specs, all)
	if err != nil {
		if helpAsked(err) {
			printHelp("server", specs)
			return
		}
		usageError("server", specs, err)
	}
	c, err := newServerConfig(o)
	if err != nil {
		fatal(err)
	}
	hideArguments("server")
	startUp(o)
	if err := os.MkdirAll(c.server(), 0700); err != nil {
		fatal(err)
	}
	if err := os.Chdir(c.server()); err != nil {
		fatal(err)
	}
	prepareComponents()
	if o.flag("etcd-s3") || o.given("etcd-s3-config-secret") {
		logrus.Warn("stand-in: snapshots go to the local directory only, S3 is not simulated")
	}
	if o.flag("cluster-reset") {
		err = clusterReset(c)
	} else {
		err = runServer(c)
	}
	if err != nil {
		fatal(err)
	}
}

// runServer runs a server until SIGTERM; any error ends it with exit code 1.
func runServer(c *serverConfig) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s := &server{c: c}
	kind, err := chooseDatastore(c)
	if err != nil {
		return err
	}
	go func() { // A signal must end the start-up too, whatever it waits for.
		<-ctx.Done()
		time.Sleep(8 * time.Second)
		os.Exit(0)
	}()
	err = s.start(ctx, kind)
	if ctx.Err() != nil {
		s.shutdown()
		return nil
	}
	if err != nil {
		return err
	}
	os.Remove(c.db("reset-flag"))
	<-ctx.Done()
	s.shutdown()
	return nil
}

// shutdown stops the node simulator and the datastore; the process then exits with 0.
func (s *server) shutdown() {
	logrus.Info("Shutdown request received: context canceled")
	shuttingDown.Store(true)
	stopSimulator()
	if s.store != nil {
		s.store.close()
	}
	os.Exit(0)
}

func (s *server) start(ctx context.Context, kind datastoreKind) error {
	c := s.c
	if err := s.prepareBootstrap(ctx, kind); err != nil {
		return fmt.Errorf("preparing server: failed to bootstrap cluster data: %w", err)
	}
	var err error
	if s.cas, err = ensureAuthorities(c.paths); err != nil {
		return err
	}
	if err := ensureServerLeafs(c.paths, s.cas, c); err != nil {
		return err
	}
	fresh := !exists(c.cred("passwd"))
	if err := s.choosePasswords(); err != nil {
		return err
	}
	if err := ensureEncryption(c, fresh); err != nil {
		return err
	}
	s.encryptionHash.Store(encryptionHash(c.paths))
	if err := writeTokenFiles(c.paths, s.secret); err != nil {
		return err
	}
	if err := writeServerKubeconfigs(c); err != nil {
		return err
	}
	if s.front, err = newFront(s); err != nil {
		return err
	}
	if s.store == nil {
		s.store = &datastore{}
	}
	if kind != sqlite {
		if s.store.member, err = newMember(c); err != nil {
			return err
		}
	}
	if err := s.front.listen(); err != nil {
		return err
	}
	s.logTokens()
	if err := s.startDatastore(ctx, kind); err != nil {
		return err
	}
	if os.Getenv(envNeverReady) != "" {
		logrus.Warnf("%s is set: the API server is not started", envNeverReady)
		<-ctx.Done()
		return nil
	}
	return s.startControlPlane(ctx)
}

// prepareBootstrap brings the shared files on disk to the datastore's state before they are used.
func (s *server) prepareBootstrap(ctx context.Context, kind datastoreKind) error {
	c := s.c
	password, err := s.startPassword()
	if err != nil {
		return err
	}
	switch kind {
	case etcdExisting:
		logrus.Info("Managed etcd cluster bootstrap already complete and initialized")
		entries, err := bootstrapFromFile(c.db("etcd", "member", "snap", "db"))
		if err != nil {
			return err
		}
		data, err := chooseBootstrap(entries, password)
		if errors.Is(err, errOtherToken) {
			data, err = s.askRunningEtcd(ctx, password)
		}
		if err != nil {
			return err
		}
		return data.reconcile(c.paths, false)
	case etcdJoin:
		logrus.Info("Managed etcd cluster not yet initialized")
		return s.contactCluster(ctx)
	case sqlite:
		if s.store, err = startKine(c); err != nil {
			return err
		}
		entries, err := bootstrapFromClient(ctx, s.store.client)
		if err != nil {
			return err
		}
		data, err := chooseBootstrap(entries, password)
		if err != nil {
			return err
		}
		return data.reconcile(c.paths, false)
	}
	return nil
}

// askRunningEtcd reads the bootstrap data from etcd itself. The database file may know other tokens only because
// its newest entries are still in the write-ahead log, as after a rotation and a crash.
func (s *server) askRunningEtcd(ctx context.Context, password string) (bootstrapData, error) {
	member, err := newMember(s.c)
	if err != nil {
		return nil, err
	}
	if err := member.start(etcdStart{existing: true, cluster: member.name + "=" + member.peerURL()}); err != nil {
		return nil, err
	}
	defer member.close()
	limited, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := member.waitReady(limited); err != nil {
		return nil, errOtherToken
	}
	entries, err := bootstrapFromClient(limited, member.client)
	if err != nil {
		return nil, errOtherToken
	}
	return chooseBootstrap(entries, password)
}

// startPassword is the token's password that this start rests on: the configured one, else the known one.
func (s *server) startPassword() (string, error) {
	if s.c.token == "" {
		return readPasswords(s.c.paths).server, nil
	}
	return serverPassword(s.c.token)
}

func (s *server) choosePasswords() error {
	known := readPasswords(s.c.paths)
	password, err := s.startPassword()
	if err != nil {
		return err
	}
	if password == "" {
		password = randomHex(16)
	}
	agent, err := secretFromFlags(s.c.options, "agent-token")
	if err != nil {
		return err
	}
	if agent != "" {
		if agent, err = serverPassword(agent); err != nil {
			return err
		}
	} else if s.joining != nil && known.node != "" {
		agent = known.node
	} else {
		agent = password
	}
	s.secret = credentials{server: password, node: agent}
	return nil
}

// contactCluster validates token and configuration with the cluster to join and takes its CA files over.
func (s *server) contactCluster(ctx context.Context) error {
	c := s.c
	if c.token == "" {
		return errors.New("K3S_TOKEN is required to join a cluster")
	}
	target, err := dialSupervisor(ctx, c.text("server"), c.token, "server")
	if err != nil {
		return fmt.Errorf("failed to validate token: %w", err)
	}
	if err := s.compareConfig(ctx, target); err != nil {
		return fmt.Errorf("failed to validate server configuration: %w", err)
	}
	var data bootstrapData
	if err := target.getJSON(ctx, "/v1-k3s/server-bootstrap", &data); err != nil {
		return fmt.Errorf("failed to get bootstrap data: %w", err)
	}
	if err := data.reconcile(c.paths, false); err != nil {
		return err
	}
	var info struct {
		Members []struct {
			ClientURLs []string `json:"clientURLs"`
			IsLearner  bool     `json:"isLearner"`
		} `json:"members"`
	}
	if err := target.getJSON(ctx, "/db/info", &info); err != nil {
		return fmt.Errorf("failed to list etcd members: %w", err)
	}
	s.joining = &joinTarget{}
	for _, member := range info.Members {
		if !member.IsLearner {
			s.joining.clientURLs = append(s.joining.clientURLs, member.ClientURLs...)
		}
	}
	return nil
}

// compareConfig compares the critical values (k3s.md §3.3).
func (s *server) compareConfig(ctx context.Context, target *supervisor) error {
	agent, err := secretFromFlags(s.c.options, "agent-token")
	if err != nil {
		return err
	}
	if agent == "" {
		agent = s.c.token
	}
	parsed, err := parseToken(agent)
	if err != nil {
		return err
	}
	asNode := *target
	asNode.user, asNode.password = "node", parsed.password
	var remote map[string]json.RawMessage
	if err := asNode.getJSON(ctx, "/v1-k3s/config", &remote); err != nil {
		logrus.Warnf("Skipping cluster configuration validation: %v", err)
		return nil
	}
	local := s.c.critical()
	mismatch, logged := false, map[string]bool{}
	for _, critical := range knownFlags.Critical {
		own, err := json.Marshal(local[critical.Field])
		if err != nil {
			return err
		}
		theirs, known := remote[critical.Field]
		tolerated := critical.Field == "EgressSelectorMode" && string(theirs) == `""`
		if !known || tolerated || string(own) == string(theirs) {
			continue
		}
		mismatch = true
		if !logged[critical.Reported] {
			logrus.Warnf("critical configuration mismatched: %s", critical.Reported)
		}
		logged[critical.Reported] = true
	}
	if mismatch {
		return errors.New("critical configuration value mismatch between servers")
	}
	return nil
}

// startDatastore starts etcd (kine runs already) and saves the bootstrap data.
func (s *server) startDatastore(ctx context.Context, kind datastoreKind) error {
	c, member := s.c, s.store.member
	switch kind {
	case etcdNew:
		if err := member.start(etcdStart{cluster: member.name + "=" + member.peerURL()}); err != nil {
			return err
		}
	case etcdExisting:
		if err := member.start(etcdStart{existing: true, cluster: member.name + "=" + member.peerURL()}); err != nil {
			return err
		}
	case etcdJoin:
		if err := member.join(ctx, s.joining.clientURLs); err != nil {
			return err
		}
	}
	if member != nil {
		if err := member.waitReady(ctx); err != nil {
			return err
		}
		s.store.client = member.client
		go func() {
			<-member.stopped()
			if !shuttingDown.Load() {
				fatal(errors.New(removedMemberText))
			}
		}()
		if kind == etcdExisting {
			if err := member.checkAddress(ctx); err != nil {
				return err
			}
		}
	}
	if kind == etcdNew && exists(c.db("state.db")) {
		if err := migrateSqlite(ctx, c, member.client); err != nil {
			return fmt.Errorf("migrating sqlite: %w", err)
		}
	}
	return s.saveNewBootstrap(ctx)
}

// saveNewBootstrap stores the shared files of a new cluster. What is stored stays: a file that this start changed, as
// passwd by another agent token, is stored by the next rotation of the server token only (K3s: Save without override),
// and until then keeps the server from starting again ("newer than datastore").
func (s *server) saveNewBootstrap(ctx context.Context) error {
	entries, err := bootstrapFromClient(ctx, s.store.client)
	if err != nil {
		return err
	}
	stored, err := chooseBootstrap(entries, s.secret.server)
	if err != nil {
		return fmt.Errorf("preparing server: failed to bootstrap cluster data: %w", err)
	}
	if stored != nil {
		return nil
	}
	return saveBootstrap(ctx, s.store.client, s.c.paths, s.secret.server, "")
}

func (s *server) startControlPlane(ctx context.Context) error {
	c := s.c
	leaderElect := s.store.member != nil || c.given("datastore-endpoint")
	webhooks, err := newWebhookServer(s)
	if err != nil {
		return err
	}
	component(ctx, "kube-apiserver", func() error { return runAPIServer(ctx, c, s.store, webhooks) })
	if err := waitReadyz(ctx, c); err != nil {
		return err
	}
	s.front.apiReady.Store(true)
	logrus.Info("Kube API server is now running")
	if s.rest, err = clientcmd.BuildConfigFromFlags("", c.cred("supervisor.kubeconfig")); err != nil {
		return err
	}
	s.rest.QPS, s.rest.Burst = 100, 200
	if s.kube, err = kubernetes.NewForConfig(s.rest); err != nil {
		return err
	}
	background := context.WithoutCancel(ctx)
	if !c.flag("disable-controller-manager") {
		component(ctx, "kube-controller-manager", func() error { return runControllerManager(background, c, leaderElect) })
	}
	if !c.flag("disable-scheduler") {
		component(ctx, "kube-scheduler", func() error { return runScheduler(background, c, leaderElect) })
	}
	if s.store.member != nil {
		logrus.Info("ETCD server is now running")
	}
	if err := s.startControllers(ctx); err != nil {
		return err
	}
	s.front.coreReady.Store(true)
	logrus.Info("k3s is up and running")
	notifyReady()
	if !c.flag("disable-agent") {
		go s.runOwnNode(ctx)
	}
	return nil
}

func (s *server) logTokens() {
	url := "https://" + net.JoinHostPort(s.c.nodeIP, fmt.Sprint(s.c.port))
	logrus.Infof("Server node token is available at %s", s.c.server("token"))
	logrus.Infof("To join server node to cluster: k3s server -s %s -t ${SERVER_NODE_TOKEN}", url)
	logrus.Infof("Agent node token is available at %s", s.c.server("agent-token"))
	logrus.Infof("To join agent node to cluster: k3s agent -s %s -t ${AGENT_NODE_TOKEN}", url)
}

// runOwnNode runs the agent part of a server against its own API server.
func (s *server) runOwnNode(ctx context.Context) {
	own := &supervisor{}
	for {
		var err error
		own, err = dialSupervisor(ctx, fmt.Sprintf("https://127.0.0.1:%d", s.c.port), s.secret.node, "node")
		if err == nil {
			break
		}
		logrus.Errorf("Failed to validate connection to cluster at %s: %v", own.address(s.c.port), err)
		if sleep(ctx, validateInterval) != nil {
			return
		}
	}
	n := &node{nodeConfig: s.c.nodeConfig, supervisor: own, apiURL: s.c.localAPI(), isServer: true}
	if err := n.run(ctx, func() {}); err != nil && ctx.Err() == nil {
		fatal(err)
	}
}

func readTrimmed(path string) (string, error) {
	data, err := os.ReadFile(path)
	return strings.TrimSpace(string(data)), err
}
