package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// supervisor is a client of the end points on 6443 with a token's credentials.
type supervisor struct {
	url, user, password string
	bearer              string
	caPEM               []byte
	client              *http.Client
}

// dialSupervisor fetches /cacerts, compares it with the hash in the token and returns a client that trusts
// that CA only. user is "node" or "server"; it overrides the user in the token, as in K3s.
func dialSupervisor(ctx context.Context, url, tokenText, user string) (*supervisor, error) {
	parsed, err := parseToken(tokenText)
	if err != nil {
		return nil, err
	}
	url = strings.TrimSuffix(url, "/")
	caPEM, err := fetchCA(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("failed to get CA certs: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(caPEM) {
		return nil, errors.New("CA cert validation failed: no certificate in the answer")
	}
	s := &supervisor{url: url, user: user, password: parsed.password, caPEM: caPEM,
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 2}}}
	if parsed.bootstrap {
		s.bearer = parsed.password
	}
	response, err := s.client.Get(url + "/cacerts")
	if err != nil {
		return nil, fmt.Errorf("CA cert validation failed: %w", err)
	}
	response.Body.Close()
	if parsed.caHash == "" {
		logrus.Warn("Cluster CA certificate is not trusted by the host CA bundle, but the token does not include " +
			"a CA hash. Use the full token from the server's node-token file to enable Cluster CA validation.")
		return s, nil
	}
	hash, err := caHash(caPEM)
	if err != nil {
		return nil, err
	}
	if hash != parsed.caHash {
		return nil, fmt.Errorf("token CA hash does not match the Cluster CA certificate hash: %s != %s", parsed.caHash, hash)
	}
	return s, nil
}

func fetchCA(ctx context.Context, url string) ([]byte, error) {
	insecure := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/cacerts", nil)
	if err != nil {
		return nil, err
	}
	response, err := insecure.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url+"/cacerts", response.Status)
	}
	return io.ReadAll(response.Body)
}

// request calls an end point; an error answer becomes an error with the Status message of its body.
func (s *supervisor) request(ctx context.Context, method, path string, header http.Header, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for key, values := range header {
		request.Header[key] = values
	}
	if s.bearer != "" {
		request.Header.Set("Authorization", "Bearer "+s.bearer)
	} else {
		request.SetBasicAuth(s.user, s.password)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		var status metav1.Status
		if json.Unmarshal(data, &status) == nil && status.Message != "" {
			return nil, errors.New(status.Message)
		}
		return nil, fmt.Errorf("%s: %s", s.url+path, response.Status)
	}
	return data, nil
}

func (s *supervisor) get(ctx context.Context, path string) ([]byte, error) {
	return s.request(ctx, http.MethodGet, path, nil, nil)
}

func (s *supervisor) getJSON(ctx context.Context, path string, into any) error {
	data, err := s.get(ctx, path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// localSupervisor is the client of the operating commands: the token in server/token and this host.
func localSupervisor(ctx context.Context, p paths, url, tokenText string) (*supervisor, error) {
	if tokenText == "" {
		data, err := readTrimmed(p.server("token"))
		if err != nil {
			return nil, err
		}
		tokenText = data
	}
	return dialSupervisor(ctx, url, tokenText, "server")
}

func sha256Hex(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// address names the cluster's address in messages, also before the first contact.
func (s *supervisor) address(port int) string {
	if s != nil && s.url != "" {
		return s.url
	}
	return fmt.Sprintf("https://127.0.0.1:%d", port)
}
