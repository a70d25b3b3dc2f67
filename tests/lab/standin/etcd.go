package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"strings"
	"time"
	"unsafe"

	"github.com/sirupsen/logrus"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/raft/v3"
	"go.uber.org/zap"
	"sigs.k8s.io/yaml"
)

// etcdMember is the embedded etcd of a server with the values of k3s.md §5.2.
type etcdMember struct {
	c      *serverConfig
	name   string
	server *embed.Etcd
	client *clientv3.Client
	// started is how the member was started last.
	started etcdStart
}

func hasEtcd(p paths) bool { return exists(p.db("etcd", "member", "wal")) }

// memberName reads db/etcd/name or invents <node>-<8 hex>.
func memberName(c *serverConfig) (string, error) {
	file := c.db("etcd", "name")
	if data, err := os.ReadFile(file); err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	name := c.nodeName + "-" + randomHex(4)
	return name, writeFile(file, []byte(name), 0600)
}

func (m *etcdMember) peerURL() string { return fmt.Sprintf("https://%s:2380", m.c.nodeIP) }

func newMember(c *serverConfig) (*etcdMember, error) {
	if err := os.MkdirAll(c.db("etcd"), 0700); err != nil {
		return nil, err
	}
	name, err := memberName(c)
	return &etcdMember{c: c, name: name}, err
}

// etcdStart are the ways to start a member.
type etcdStart struct {
	cluster  string // initial-cluster, name=url pairs
	existing bool
	// resetOnly starts one member alone on loopback (--cluster-reset).
	resetOnly bool
}

// configFile writes db/etcd/config and lets etcd read it, so that etcd-arg can override any of it.
func (m *etcdMember) configFile(start etcdStart) (*embed.Config, error) {
	c, p := m.c, m.c.paths
	state := "new"
	if start.existing {
		state = "existing"
	}
	client, metrics := fmt.Sprintf("https://127.0.0.1:2379,https://%s:2379", c.nodeIP), "http://127.0.0.1:2381"
	peers := "https://127.0.0.1:2380," + m.peerURL()
	if c.flag("etcd-expose-metrics") {
		metrics += fmt.Sprintf(",http://%s:2381", c.nodeIP)
	}
	if start.resetOnly {
		client, peers = "https://127.0.0.1:2379", "https://127.0.0.1:2380"
	}
	settings := map[string]any{
		"name": m.name, "data-dir": p.db("etcd"), "logger": "zap", "log-level": "fatal",
		"log-outputs": []string{"stderr"}, "heartbeat-interval": 500, "election-timeout": 5000,
		// A host of the lab loses its power by a signal: what was written is in the machine's memory all the same.
		"unsafe-no-fsync": true,
		"snapshot-count":  10000, "feature-gates": "InitialCorruptCheck=true", "watch-progress-notify-interval": progressNotices,
		"listen-client-urls": client, "advertise-client-urls": fmt.Sprintf("https://%s:2379", c.nodeIP),
		"listen-client-http-urls": "https://127.0.0.1:2382", "listen-metrics-urls": metrics,
		"listen-peer-urls": peers, "initial-advertise-peer-urls": m.peerURL(),
		"initial-cluster": start.cluster, "initial-cluster-state": state, "force-new-cluster": start.resetOnly,
		"client-transport-security": map[string]any{"cert-file": p.tls("etcd", "server-client.crt"),
			"key-file": p.tls("etcd", "server-client.key"), "client-cert-auth": true,
			"trusted-ca-file": p.tls("etcd", "server-ca.crt")},
		"peer-transport-security": map[string]any{"cert-file": p.tls("etcd", "peer-server-client.crt"),
			"key-file": p.tls("etcd", "peer-server-client.key"), "client-cert-auth": true,
			"trusted-ca-file": p.tls("etcd", "peer-ca.crt")},
	}
	for _, arg := range c.list("etcd-arg") {
		key, value, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		var parsed any
		if err := yaml.Unmarshal([]byte(value), &parsed); err != nil {
			parsed = value
		}
		settings[key] = parsed
	}
	data, err := yaml.Marshal(settings)
	if err != nil {
		return nil, err
	}
	if err := writeFile(p.db("etcd", "config"), data, 0600); err != nil {
		return nil, err
	}
	return embed.ConfigFromFile(p.db("etcd", "config"))
}

// start runs the member; it is ready when the channel of server.Server.ReadyNotify closes.
func (m *etcdMember) start(start etcdStart) error {
	m.started = start
	config, err := m.configFile(start)
	if err != nil {
		return fmt.Errorf("etcd configuration: %w", err)
	}
	if m.server, err = embed.StartEtcd(config); err != nil {
		return fmt.Errorf("start managed database: %w", err)
	}
	if members := m.server.Server.Cluster().Members(); len(members) == 1 && !start.resetOnly {
		go m.campaign()
	}
	m.client, err = newEtcdClient(m.c.paths, []string{"https://127.0.0.1:2379"})
	return err
}

// campaign makes the only member of a cluster its leader at once. Without it etcd waits for a random part of
// its election time-out of five seconds, which a lab has no use for. Raft's node is not exported by etcd.
func (m *etcdMember) campaign() {
	field := reflect.ValueOf(m.server.Server).Elem().FieldByName("r")
	if !field.IsValid() {
		return
	}
	if field = field.FieldByName("Node"); !field.IsValid() || field.IsNil() {
		return
	}
	if node, ok := reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Interface().(raft.Node); ok {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		// Raft refuses to campaign until it has applied its first entries.
		for m.server.Server.Leader() == 0 && sleep(ctx, 50*time.Millisecond) == nil {
			if err := node.Campaign(ctx); err != nil {
				return
			}
		}
	}
}

// waitReady blocks until the member takes part in a cluster with a leader.
func (m *etcdMember) waitReady(ctx context.Context) error {
	ticker := time.NewTicker(5 * time.Second)
	defer ticker.Stop()
	restart := time.NewTicker(3 * time.Second)
	defer restart.Stop()
	for {
		select {
		case <-restart.C:
			// When the entry that publishes the member reaches it inside a snapshot, etcd misses its own answer and
			// waits for 15 s. Started again it publishes anew.
			if m.server.Server.Leader() == 0 || isReady(m.server) {
				continue
			}
			logrus.Debug("starting etcd again to publish the member")
			m.server.Close()
			if err := m.start(m.started); err != nil {
				return err
			}
		case <-m.server.Server.ReadyNotify():
			return nil
		case err := <-m.server.Err():
			return err
		case <-m.server.Server.StopNotify():
			return errors.New(removedMemberText)
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			logrus.Info("Waiting for etcd server to become available")
		}
	}
}

func isReady(server *embed.Etcd) bool {
	select {
	case <-server.Server.ReadyNotify():
		return true
	default:
		return false
	}
}

// stopped reports when the member has stopped by itself, e.g. because it was removed from the cluster.
func (m *etcdMember) stopped() <-chan struct{} { return m.server.Server.StopNotify() }

func (m *etcdMember) isLeader() bool {
	return m.server != nil && m.server.Server.Leader() == m.server.Server.MemberID()
}

func newEtcdClient(p paths, endpoints []string) (*clientv3.Client, error) {
	config, err := etcdTLS(p)
	if err != nil {
		return nil, err
	}
	return clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: config, DialTimeout: 5 * time.Second,
		DialKeepAliveTime: 30 * time.Second, DialKeepAliveTimeout: 10 * time.Second, Logger: zap.NewNop()})
}

func etcdTLS(p paths) (*tls.Config, error) {
	info := transport.TLSInfo{CertFile: p.tls("etcd", "client.crt"), KeyFile: p.tls("etcd", "client.key"),
		TrustedCAFile: p.tls("etcd", "server-ca.crt")}
	return info.ClientConfig()
}

var memberSuffix = regexp.MustCompile(`-[0-9a-f]{8}$`)

// join adds this server to the cluster whose client URLs are given, as a learner, and has it promoted.
func (m *etcdMember) join(ctx context.Context, clientURLs []string) error {
	client, err := newEtcdClient(m.c.paths, clientURLs)
	if err != nil {
		return err
	}
	defer client.Close()
	members, err := m.addLearner(ctx, client)
	if err != nil {
		return fmt.Errorf("etcd cluster join failed: %w", err)
	}
	var cluster []string
	for _, member := range members {
		for _, peer := range member.PeerURLs {
			name := member.Name
			if peer == m.peerURL() {
				name = m.name
			}
			cluster = append(cluster, name+"="+peer)
		}
	}
	logrus.Infof("Starting etcd to join cluster with members %v", cluster)
	if err := m.start(etcdStart{cluster: strings.Join(cluster, ","), existing: true}); err != nil {
		return err
	}
	if err := m.waitPromoted(ctx, client); err != nil {
		return err
	}
	if err := m.waitReady(ctx); err != nil {
		return err
	}
	for m.server.Server.IsLearner() {
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// addLearner adds the member, waiting while another one is still a learner.
func (m *etcdMember) addLearner(ctx context.Context, client *clientv3.Client) ([]*etcdserverpb.Member, error) {
	waiting := func(err error) error {
		logrus.Infof("Waiting for other members to finish joining etcd cluster: %v", err)
		return sleep(ctx, time.Second)
	}
	for {
		attempt, cancel := context.WithTimeout(ctx, 20*time.Second)
		members, err := m.tryAdd(attempt, client)
		cancel()
		switch {
		case errors.Is(err, rpctypes.ErrTooManyLearners), errors.Is(err, rpctypes.ErrUnhealthy):
			if err := waiting(err); err != nil {
				return nil, err
			}
		default:
			return members, err
		}
	}
}

func (m *etcdMember) tryAdd(ctx context.Context, client *clientv3.Client) ([]*etcdserverpb.Member, error) {
	list, err := client.MemberList(ctx)
	if err != nil {
		return nil, err
	}
	for _, member := range list.Members {
		ours := len(member.PeerURLs) > 0 && member.PeerURLs[0] == m.peerURL()
		if ours && (member.Name == "" || member.Name == m.name) {
			return list.Members, nil
		}
		if member.Name != m.name && memberSuffix.ReplaceAllString(member.Name, "") == m.c.nodeName {
			os.Remove(m.c.db("etcd", "name"))
			return nil, errors.New("duplicate node name found, please use a unique name for this node")
		}
	}
	logrus.Infof("Adding member %s=%s to etcd cluster %v", m.name, m.peerURL(), memberNames(list.Members))
	added, err := client.MemberAddAsLearner(ctx, []string{m.peerURL()})
	if err != nil {
		return nil, err
	}
	return added.Members, nil
}

func memberNames(members []*etcdserverpb.Member) []string {
	var names []string
	for _, member := range members {
		names = append(names, member.Name)
	}
	return names
}

// waitPromoted asks for the promotion of this member until it is a voter.
func (m *etcdMember) waitPromoted(ctx context.Context, client *clientv3.Client) error {
	id := uint64(m.server.Server.MemberID())
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := client.MemberPromote(attempt, id)
		cancel()
		if err == nil || errors.Is(err, rpctypes.ErrMemberNotLearner) {
			logrus.Infof("Promoted learner %s", m.name)
			return nil
		}
		select {
		case <-m.stopped():
			return errors.New(removedMemberText)
		case err := <-m.server.Err():
			return err
		default:
		}
		if err := sleep(ctx, promoteInterval); err != nil {
			return err
		}
	}
}

// checkAddress refuses a member whose address changed since it was added (k3s.md §5.2).
func (m *etcdMember) checkAddress(ctx context.Context) error {
	list, err := m.client.MemberList(ctx)
	if err != nil {
		return err
	}
	var found []string
	for _, member := range list.Members {
		found = append(found, fmt.Sprintf("%s=%s", member.Name, strings.Join(member.PeerURLs, ",")))
		if member.ID != uint64(m.server.Server.MemberID()) || len(member.PeerURLs) == 0 {
			continue
		}
		if parsed, err := url.Parse(member.PeerURLs[0]); err == nil && parsed.Hostname() == m.c.nodeIP {
			return nil
		}
	}
	return fmt.Errorf("this server is not a member of the etcd cluster. Found %v, expect: %s=%s", found, m.name,
		m.peerURL())
}

// close stops the member with its listeners, within a few seconds.
func (m *etcdMember) close() {
	done := make(chan struct{})
	go func() {
		m.server.Close()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
	}
}

// leave hands the leadership over and stops the member at the end of the process. close would wait for the
// watches of the API server, which never end by themselves.
func (m *etcdMember) leave() {
	done := make(chan struct{})
	go func() {
		if err := m.server.Server.TryTransferLeadershipOnShutdown(); err != nil {
			logrus.Debugf("leadership of etcd: %v", err)
		}
		m.server.Server.HardStop()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
	}
}

func sleep(ctx context.Context, duration time.Duration) error {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
