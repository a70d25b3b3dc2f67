package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

func agentCommand(args []string) {
	specs := flagsOf("agent")
	all, err := commandLine("agent", specs, args)
	if err != nil {
		fatal(err)
	}
	o, err := parseFlags("agent", specs, all)
	if err != nil {
		if helpAsked(err) {
			printHelp("agent", specs)
			return
		}
		usageError("agent", specs, err)
	}
	if os.Getuid() != 0 && !o.flag("rootless") {
		fatal(errors.New("agent must be run as root, or with --rootless"))
	}
	tokenText, err := tokenFromFlags(o)
	if err != nil {
		fatal(err)
	}
	n, err := newNodeConfig(o)
	if err != nil {
		fatal(err)
	}
	if tokenText == "" && !exists(n.agent("client-kubelet.crt")) {
		fatal(errors.New("--token is required"))
	}
	if o.text("server") == "" {
		fatal(errors.New("--server is required"))
	}
	if err := checkURL(o.text("server")); err != nil {
		fatal(err)
	}
	hideArguments("agent")
	startUp(o)
	if err := runAgent(n, tokenText); err != nil {
		fatal(err)
	}
}

// runAgent runs an agent until SIGTERM. Whatever is wrong with the cluster it only waits: like K3s it
// neither ends nor becomes ready.
func runAgent(n nodeConfig, tokenText string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := os.MkdirAll(n.agent("etc"), 0700); err != nil {
		return err
	}
	if err := os.Chmod(n.agent(), 0700); err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		shuttingDown.Store(true)
		stopSimulator()
		logrus.Info("Shutdown request received: context canceled")
		os.Exit(0)
	}()
	parsed, err := url.Parse(n.text("server"))
	if err != nil {
		return err
	}
	address := parsed.Host
	if parsed.Port() == "" {
		address += ":443"
	}
	apiURL := "https://" + address
	balancer := newBalancer(address, n.agent("etc", "k3s-agent-load-balancer.json"))
	if !n.flag("disable-apiserver-lb") {
		apiURL = fmt.Sprintf("https://127.0.0.1:%d", n.number("lb-server-port"))
		if err := balancer.listen(n.number("lb-server-port")); err != nil {
			return err
		}
	}
	connection, err := validateCluster(ctx, apiURL, tokenText)
	if err != nil {
		return err
	}
	go balancer.follow(ctx, connection)
	go balancer.checkHealth(ctx)
	agent := &node{nodeConfig: n, supervisor: connection, apiURL: apiURL}
	return agent.run(ctx, func() {
		logrus.Info("k3s agent is up and running")
		notifyReady()
	})
}

// validateCluster repeats the first contact until it succeeds.
func validateCluster(ctx context.Context, url, tokenText string) (*supervisor, error) {
	for {
		connection, err := dialSupervisor(ctx, url, tokenText, "node")
		if err == nil {
			return connection, nil
		}
		logrus.Errorf("Failed to validate connection to cluster at %s: %v", url, err)
		if err := sleep(ctx, validateInterval); err != nil {
			return nil, err
		}
	}
}

// follow keeps the balancer's list equal to the API servers of the cluster.
func (b *balancer) follow(ctx context.Context, connection *supervisor) {
	for {
		var servers []string
		if err := connection.getJSON(ctx, "/v1-k3s/apiservers", &servers); err == nil && len(servers) > 0 {
			b.update(servers)
		}
		if sleep(ctx, apiserversInterval) != nil {
			return
		}
	}
}

// retry repeats a step of the agent's set-up as long as the cluster is not ready for it.
func retry(ctx context.Context, step func() error) error {
	for {
		err := step()
		if err == nil {
			return nil
		}
		logrus.Infof("Waiting to retrieve agent configuration; server is not ready: %v", err)
		if err := sleep(ctx, agentConfigPause+time.Duration(time.Now().UnixNano()%int64(time.Second))); err != nil {
			return err
		}
	}
}
