package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig/controller"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/restclient"
	_ "k8s.io/component-base/metrics/prometheus/version"
	_ "k8s.io/component-base/metrics/prometheus/workqueue"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiopts "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kcmopts "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	schedopts "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// The upstream commands cannot run in one process (each sets up the signal handler, which may be done
// once), so their option structs and run functions are used.

// componentArgs turns defaults and the user's "flag=value" overrides into a sorted command line:
// "flag=" replaces, "flag+=" appends to and "flag-=" prepends to the default (k3s.md §13.2).
func componentArgs(defaults map[string]string, overrides []string) []string {
	values := map[string][]string{}
	for key, value := range defaults {
		values[key] = []string{value}
	}
	seen := map[string]bool{}
	for _, item := range overrides {
		key, value, hasValue := strings.Cut(strings.TrimLeft(item, "-"), "=")
		if !hasValue {
			value = "true"
		}
		base, adds := strings.CutSuffix(key, "+")
		base, prepends := strings.CutSuffix(base, "-")
		joined := func(first, second string) []string { return []string{strings.Trim(first+","+second, ",")} }
		switch old := strings.Join(values[base], ","); {
		case adds:
			values[base] = joined(old, value)
		case prepends:
			values[base] = joined(value, old)
		case seen[base]:
			values[base] = append(values[base], value)
		default:
			values[base], seen[base] = []string{value}, true
		}
	}
	var args []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		for _, value := range values[key] {
			args = append(args, "--"+key+"="+value)
		}
	}
	return args
}

func parseComponent(name string, sets *cliflag.NamedFlagSets, args []string) error {
	logrus.Infof("Running %s %s", name, strings.Join(args, " "))
	all := pflag.NewFlagSet(name, pflag.ContinueOnError)
	all.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	all.Usage = func() {}
	for _, set := range sets.FlagSets {
		all.AddFlagSet(set)
	}
	// Logging is set up once for the whole process, so these common flags are accepted and ignored.
	for _, common := range []string{"v", "vmodule"} {
		if all.Lookup(common) == nil {
			all.String(common, "", "")
		}
	}
	return all.Parse(args)
}

func prepareComponents() {
	logsapi.ReapplyHandling = logsapi.ReapplyHandlingIgnoreUnchanged
	controller.EncryptionConfigFileChangePollDuration = encryptionReload
}

func apiserverArgs(c *serverConfig, store *datastore) []string {
	p := c.paths
	args := map[string]string{
		"advertise-address": c.advertiseIP, "allow-privileged": "true", "anonymous-auth": "false",
		"api-audiences":      fmt.Sprintf("https://kubernetes.default.svc.%s,k3s", c.clusterDomain),
		"authorization-mode": "Node,RBAC", "bind-address": "127.0.0.1",
		"secure-port": fmt.Sprint(c.apiPort()), "cert-dir": p.tls("temporary-certs"),
		"client-ca-file": p.tls("client-ca.crt"), "enable-admission-plugins": "NodeRestriction",
		"enable-aggregator-routing": "true", "enable-bootstrap-token-auth": "true",
		"etcd-servers":                       strings.Join(store.endpoints, ","),
		"kubelet-certificate-authority":      p.tls("server-ca.crt"),
		"kubelet-client-certificate":         p.tls("client-kube-apiserver.crt"),
		"kubelet-client-key":                 p.tls("client-kube-apiserver.key"),
		"kubelet-preferred-address-types":    "InternalIP,ExternalIP,Hostname",
		"profiling":                          "false",
		"proxy-client-cert-file":             p.tls("client-auth-proxy.crt"),
		"proxy-client-key-file":              p.tls("client-auth-proxy.key"),
		"requestheader-allowed-names":        "system:auth-proxy",
		"requestheader-client-ca-file":       p.tls("request-header-ca.crt"),
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"requestheader-group-headers":        "X-Remote-Group", "requestheader-username-headers": "X-Remote-User",
		"service-account-issuer":           "https://kubernetes.default.svc." + c.clusterDomain,
		"service-account-key-file":         p.tls("service.key"),
		"service-account-signing-key-file": p.tls("service.current.key"),
		"service-cluster-ip-range":         strings.Join(c.serviceCIDR, ","),
		"service-node-port-range":          c.text("service-node-port-range"),
		"storage-backend":                  "etcd3",
		"tls-cert-file":                    p.tls("serving-kube-apiserver.crt"),
		"tls-private-key-file":             p.tls("serving-kube-apiserver.key"),
	}
	if store.member != nil {
		args["etcd-servers"] = "https://127.0.0.1:2379"
		args["etcd-cafile"] = p.tls("etcd", "server-ca.crt")
		args["etcd-certfile"] = p.tls("etcd", "client.crt")
		args["etcd-keyfile"] = p.tls("etcd", "client.key")
	}
	if exists(p.cred("encryption-config.json")) {
		args["encryption-provider-config"] = p.cred("encryption-config.json")
		args["encryption-provider-config-automatic-reload"] = "true"
	}
	return componentArgs(args, c.list("kube-apiserver-arg"))
}

// runAPIServer blocks until the context ends or the API server fails.
func runAPIServer(ctx context.Context, c *serverConfig, store *datastore, webhooks *webhookServer) error {
	o := apiopts.NewServerRunOptions()
	sets := o.Flags()
	if err := parseComponent("kube-apiserver", &sets, apiserverArgs(c, store)); err != nil {
		return err
	}
	if err := o.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return err
	}
	// The loopback client must find the real port; the "kubernetes" Service must get the front's port, which
	// upstream takes from the listener's address too. So the address changes between the two steps.
	inner, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", c.apiPort()))
	if err != nil {
		return err
	}
	listener := &advertisingListener{Listener: inner}
	o.SecureServing.Listener = listener
	o.SecureServing.BindPort = c.apiPort()
	completed, err := o.Complete(ctx)
	if err != nil {
		return err
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return errs[0]
	}
	config, err := apiserver.NewConfig(completed)
	if err != nil {
		return err
	}
	generic := config.KubeAPIs.ControlPlane
	if err := webhooks.connect(generic.VersionedInformers, generic.Generic.LoopbackClientConfig.Host); err != nil {
		return err
	}
	listener.advertised.Store(int64(c.advertisePort()))
	ready, err := config.Complete()
	if err != nil {
		return err
	}
	chain, err := apiserver.CreateServerChain(ready)
	if err != nil {
		return err
	}
	listener.advertised.Store(0)
	prepared, err := chain.PrepareRun()
	if err != nil {
		return err
	}
	return prepared.Run(ctx)
}

// advertisingListener can claim another port than the one it listens on.
type advertisingListener struct {
	net.Listener
	advertised atomic.Int64
}

// Addr returns the advertised address while one is set, otherwise the real one.
func (l *advertisingListener) Addr() net.Addr {
	if port := l.advertised.Load(); port > 0 {
		return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)}
	}
	return l.Listener.Addr()
}

func runControllerManager(ctx context.Context, c *serverConfig, leaderElect bool) error {
	p := c.paths
	controllers := "*,tokencleaner"
	if !c.flag("disable-cloud-controller") {
		controllers += ",-service,-route,-cloud-node-lifecycle"
	}
	args := map[string]string{
		"allocate-node-cidrs": "true", "bind-address": "127.0.0.1",
		"authentication-kubeconfig":                       p.cred("controller.kubeconfig"),
		"authorization-kubeconfig":                        p.cred("controller.kubeconfig"),
		"cluster-cidr":                                    strings.Join(c.clusterCIDR, ","),
		"cluster-signing-kube-apiserver-client-cert-file": p.tls("client-ca.crt"),
		"cluster-signing-kube-apiserver-client-key-file":  p.tls("client-ca.key"),
		"cluster-signing-kubelet-client-cert-file":        p.tls("client-ca.crt"),
		"cluster-signing-kubelet-client-key-file":         p.tls("client-ca.key"),
		"cluster-signing-kubelet-serving-cert-file":       p.tls("server-ca.crt"),
		"cluster-signing-kubelet-serving-key-file":        p.tls("server-ca.key"),
		"cluster-signing-legacy-unknown-cert-file":        p.tls("server-ca.crt"),
		"cluster-signing-legacy-unknown-key-file":         p.tls("server-ca.key"),
		"configure-cloud-routes":                          "false", "controllers": controllers,
		"kubeconfig": p.cred("controller.kubeconfig"), "leader-elect": fmt.Sprint(leaderElect),
		"node-monitor-grace-period": nodeMonitorGracePeriod.String(), "node-monitor-period": nodeMonitorPeriod.String(),
		"profiling": "false", "root-ca-file": p.tls("server-ca.crt"), "secure-port": "10257",
		"service-account-private-key-file": p.tls("service.current.key"),
		"service-cluster-ip-range":         strings.Join(c.serviceCIDR, ","),
		"tls-cert-file":                    p.tls("kube-controller-manager", "kube-controller-manager.crt"),
		"tls-private-key-file":             p.tls("kube-controller-manager", "kube-controller-manager.key"),
		"use-service-account-credentials":  "true",
	}
	o, err := kcmopts.NewKubeControllerManagerOptions()
	if err != nil {
		return err
	}
	sets := o.Flags(kcm.KnownControllers(), kcm.ControllersDisabledByDefault(), kcm.ControllerAliases())
	o.ParsedFlags = &sets
	overrides := append(c.list("kube-controller-manager-arg"), c.list("kube-controller-arg")...)
	if err := parseComponent("kube-controller-manager", &sets, componentArgs(args, overrides)); err != nil {
		return err
	}
	config, err := o.Config(ctx, kcm.KnownControllers(), kcm.ControllersDisabledByDefault(), kcm.ControllerAliases())
	if err != nil {
		return err
	}
	return kcm.Run(ctx, config.Complete())
}

func runScheduler(ctx context.Context, c *serverConfig, leaderElect bool) error {
	kubeconfig := c.cred("scheduler.kubeconfig")
	o := schedopts.NewOptions()
	args := componentArgs(map[string]string{"authentication-kubeconfig": kubeconfig,
		"authorization-kubeconfig": kubeconfig, "kubeconfig": kubeconfig, "bind-address": "127.0.0.1",
		"leader-elect": fmt.Sprint(leaderElect), "profiling": "false", "secure-port": "10259",
		"tls-cert-file":        c.tls("kube-scheduler", "kube-scheduler.crt"),
		"tls-private-key-file": c.tls("kube-scheduler", "kube-scheduler.key"),
	}, c.list("kube-scheduler-arg"))
	if err := parseComponent("kube-scheduler", o.Flags, args); err != nil {
		return err
	}
	completed, instance, err := scheduler.Setup(ctx, o)
	if err != nil {
		return err
	}
	return scheduler.Run(ctx, completed, instance)
}

// component runs one part of the control plane; its end, for whatever reason, ends the process.
func component(ctx context.Context, name string, run func() error) {
	go func() {
		err := run()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = fmt.Errorf("stopped")
		}
		fatal(fmt.Errorf("%s exited: %w", name, err))
	}()
}

// waitReadyz polls the local API server until it is ready.
func waitReadyz(ctx context.Context, c *serverConfig) error {
	certificate, err := tls.LoadX509KeyPair(c.tls("client-supervisor.crt"), c.tls("client-supervisor.key"))
	if err != nil {
		return err
	}
	pool, err := certPool(c.tls("server-ca.crt"))
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{certificate}}}}
	defer client.CloseIdleConnections()
	lastLog := time.Now()
	for {
		response, err := client.Get(c.localAPI() + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		if time.Since(lastLog) > 5*time.Second {
			lastLog = time.Now()
			logrus.Info("Waiting for API server to become available")
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func certPool(path string) (*x509.CertPool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(data)
	return pool, nil
}
