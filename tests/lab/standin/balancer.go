package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// balancer is the agent's TCP load balancer on 127.0.0.1:6444. Its server list survives restarts, so an
// agent comes up again when the configured server is gone.
type balancer struct {
	file           string
	defaultAddress string

	mu      sync.Mutex
	servers []string
	failed  map[string]bool
	open    map[net.Conn]string // open connections to servers
}

// savedServers is the JSON of the file.
type savedServers struct {
	ServerURL       string   `json:"ServerURL"`
	ServerAddresses []string `json:"ServerAddresses"`
}

func newBalancer(address, file string) *balancer {
	b := &balancer{file: file, defaultAddress: address, servers: []string{address}, failed: map[string]bool{},
		open: map[net.Conn]string{}}
	var saved savedServers
	if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &saved) == nil &&
		saved.ServerURL == "https://"+address && len(saved.ServerAddresses) > 0 {
		b.servers = saved.ServerAddresses
	}
	return b
}

func (b *balancer) listen(port int) error {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	logrus.Infof("Running load balancer k3s-agent-load-balancer 127.0.0.1:%d -> %v [default: %s]", port, b.servers,
		b.defaultAddress)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				fatal(err)
			}
			go b.serve(connection)
		}
	}()
	return nil
}

// candidates lists the servers to try, those that failed last, the configured address at the very end.
func (b *balancer) candidates() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := slices.Clone(b.servers)
	slices.SortStableFunc(all, func(x, y string) int {
		switch {
		case b.failed[x] == b.failed[y]:
			return 0
		case b.failed[x]:
			return 1
		}
		return -1
	})
	if !slices.Contains(all, b.defaultAddress) {
		all = append(all, b.defaultAddress)
	}
	return all
}

func (b *balancer) serve(client net.Conn) {
	defer client.Close()
	for _, address := range b.candidates() {
		server, err := net.DialTimeout("tcp", address, 2*time.Second)
		if err != nil {
			b.mark(address, true)
			continue
		}
		b.pump(client, server, address)
		return
	}
}

func (b *balancer) pump(client, server net.Conn, address string) {
	b.mu.Lock()
	b.open[server] = address
	b.mu.Unlock()
	defer func() {
		server.Close()
		b.mu.Lock()
		delete(b.open, server)
		b.mu.Unlock()
	}()
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		go func() {
			io.Copy(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
}

// mark notes whether a server answers; the connections of one that does not are cut.
func (b *balancer) mark(address string, failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed[address] != failed {
		logrus.Infof("Server %s: healthy=%t", address, !failed)
	}
	b.failed[address] = failed
	for connection, server := range b.open {
		if failed && server == address {
			connection.Close()
		}
	}
}

// update takes over a new list and saves it.
func (b *balancer) update(servers []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.Equal(servers, b.servers) && exists(b.file) {
		return
	}
	b.servers = servers
	logrus.Infof("Updated load balancer k3s-agent-load-balancer server addresses -> %v [default: %s]", servers,
		b.defaultAddress)
	data, err := json.MarshalIndent(savedServers{"https://" + b.defaultAddress, servers}, "", "  ")
	if err == nil {
		err = writeFile(b.file, data, 0600)
	}
	if err != nil {
		logrus.Errorf("Failed to save the server list: %v", err)
	}
}

// checkHealth asks each server's /ping, so that connections to a dead one do not linger.
func (b *balancer) checkHealth(ctx context.Context) {
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for sleep(ctx, 5*time.Second) == nil {
		for _, address := range b.candidates() {
			response, err := client.Get("https://" + address + "/ping")
			if err == nil {
				response.Body.Close()
			}
			b.mark(address, err != nil)
		}
	}
}
