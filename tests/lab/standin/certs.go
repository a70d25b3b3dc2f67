package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sirupsen/logrus"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

const (
	leafLife    = 365 * 24 * time.Hour
	authorityLn = 3650 * 24 * time.Hour
	renewBefore = 120 * 24 * time.Hour // k3s.md §8.2
)

// authority is a CA on disk.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
	root []byte // of an intermediate: the CA above it
}

// leafSpec says what a certificate is for.
type leafSpec struct {
	commonName string
	groups     []string
	names      []string
	usages     []x509.ExtKeyUsage
	notBefore  time.Time
}

var (
	clientUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	serverUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	bothUsages  = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
)

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func encodeKey(key crypto.Signer) ([]byte, error) {
	return keyutil.MarshalPrivateKeyToPEM(key)
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func loadKey(path string) (crypto.Signer, error) {
	key, err := keyutil.PrivateKeyFromFile(path)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s does not hold a signing key", path)
	}
	return signer, nil
}

// loadOrMakeKey keeps a key over renewals of its certificate, as K3s does.
func loadOrMakeKey(path string) (crypto.Signer, error) {
	if exists(path) {
		return loadKey(path)
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	data, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(path, data, 0600)
}

// loadAuthority reads <base>.crt and <base>.key.
func loadAuthority(base string) (*authority, error) {
	data, err := os.ReadFile(base + ".crt")
	if err != nil {
		return nil, err
	}
	certs, err := certutil.ParseCertsPEM(data)
	if err != nil {
		return nil, err
	}
	key, err := loadKey(base + ".key")
	if err != nil {
		return nil, err
	}
	return &authority{cert: certs[0], key: key, pem: data}, nil
}

// ensureAuthority loads a CA or makes a self-signed one named <name>-ca@<unix>.
func ensureAuthority(base, name string) (*authority, error) {
	if exists(base + ".crt") {
		return loadAuthority(base)
	}
	key, err := loadOrMakeKey(base + ".key")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("%s@%d", name, now.Unix())},
		NotBefore:             now.Add(-time.Minute),
		NotAfter:              now.Add(authorityLn),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if err := writeFile(base+".crt", encodeCert(der), 0644); err != nil {
		return nil, err
	}
	return loadAuthority(base)
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err)
	}
	return n
}

// sign issues a leaf for a public key; the answer is the PEM of leaf and CA.
func (a *authority) sign(public crypto.PublicKey, spec leafSpec) ([]byte, error) {
	notBefore := spec.notBefore
	if notBefore.IsZero() {
		notBefore = a.cert.NotBefore
	}
	start := time.Now()
	if notBefore.After(start) {
		start = notBefore
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: spec.commonName, Organization: spec.groups},
		NotBefore:    notBefore,
		NotAfter:     start.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  spec.usages,
	}
	for _, name := range spec.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if name != "" {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, err
	}
	logrus.Infof("certificate CN=%s signed by CN=%s: notBefore=%s notAfter=%s", spec.commonName,
		a.cert.Subject.CommonName, template.NotBefore.UTC(), template.NotAfter.UTC())
	return append(encodeCert(der), a.pem...), nil
}

// ensureLeaf issues <base>.crt when it is missing, near its end, from another CA or lacks a name.
func ensureLeaf(ca *authority, base string, spec leafSpec) error {
	if current, err := readCert(base + ".crt"); err == nil && current.CheckSignatureFrom(ca.cert) == nil &&
		time.Until(current.NotAfter) > renewBefore && covers(current, spec.names) && exists(base+".key") {
		return nil
	}
	key, err := loadOrMakeKey(base + ".key")
	if err != nil {
		return err
	}
	chain, err := ca.sign(key.Public(), spec)
	if err != nil {
		return err
	}
	return writeFile(base+".crt", chain, 0644)
}

func covers(cert *x509.Certificate, names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool {
		return name != "" && cert.VerifyHostname(name) != nil
	})
}

func readCert(path string) (*x509.Certificate, error) {
	certs, err := certutil.CertsFromFile(path)
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate")
	}
	return certs[0], nil
}

// authorities are the CAs of a cluster.
type authorities struct {
	client, server, requestHeader, etcdServer, etcdPeer *authority
}

// ensureAuthorities loads or makes the CAs and the service account key.
func ensureAuthorities(p paths) (*authorities, error) {
	for _, dir := range []string{p.tls("etcd"), p.tls("temporary-certs"), p.cred(), p.server("etc")} {
		if err := os.MkdirAll(dir, 0700); err != nil {
			return nil, err
		}
	}
	if _, err := loadOrMakeKey(p.tls("service.key")); err != nil {
		return nil, err
	}
	key, err := os.ReadFile(p.tls("service.key"))
	if err != nil {
		return nil, err
	}
	if err := writeFile(p.tls("service.current.key"), key, 0600); err != nil {
		return nil, err
	}
	var all authorities
	for _, ca := range []struct {
		into       **authority
		base, name string
	}{
		{&all.client, "client-ca", "k3s-client-ca"}, {&all.server, "server-ca", "k3s-server-ca"},
		{&all.requestHeader, "request-header-ca", "k3s-request-header-ca"},
		{&all.etcdServer, "etcd/server-ca", "etcd-server-ca"}, {&all.etcdPeer, "etcd/peer-ca", "etcd-peer-ca"},
	} {
		if *ca.into, err = ensureAuthority(p.tls(ca.base), ca.name); err != nil {
			return nil, err
		}
	}
	return &all, nil
}

// ensureServerLeafs issues the certificates of a server's components.
func ensureServerLeafs(p paths, all *authorities, c *serverConfig) error {
	masters := []string{"system:masters"}
	service := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc." + c.clusterDomain, "localhost", "127.0.0.1", "::1", c.serviceIP(1)}
	etcdNames := []string{"localhost", "127.0.0.1", "::1", c.nodeIP, c.nodeName}
	for _, leaf := range []struct {
		ca   *authority
		base string
		spec leafSpec
	}{
		{all.client, "client-admin", leafSpec{"system:admin", masters, nil, clientUsage, time.Time{}}},
		{all.client, "client-supervisor", leafSpec{"system:k3s-supervisor", masters, nil, clientUsage, time.Time{}}},
		{all.client, "client-controller", leafSpec{"system:kube-controller-manager", nil, nil, clientUsage, time.Time{}}},
		{all.client, "client-scheduler", leafSpec{"system:kube-scheduler", nil, nil, clientUsage, time.Time{}}},
		{all.client, "client-kube-apiserver", leafSpec{"system:apiserver", masters, nil, clientUsage, time.Time{}}},
		{all.client, "client-kube-proxy", leafSpec{"system:kube-proxy", nil, nil, clientUsage, time.Time{}}},
		{all.client, "client-k3s-controller", leafSpec{"system:k3s-controller", nil, nil, clientUsage, time.Time{}}},
		{all.client, "client-k3s-cloud-controller", leafSpec{"k3s-cloud-controller-manager", nil, nil, clientUsage, time.Time{}}},
		{all.requestHeader, "client-auth-proxy", leafSpec{"system:auth-proxy", nil, nil, clientUsage, time.Time{}}},
		{all.server, "serving-kube-apiserver", leafSpec{"kube-apiserver", nil, append(service, c.advertiseIP), serverUsage, time.Time{}}},
		{all.server, "kube-controller-manager/kube-controller-manager", leafSpec{"kube-controller-manager", nil, etcdNames, serverUsage, time.Time{}}},
		{all.server, "kube-scheduler/kube-scheduler", leafSpec{"kube-scheduler", nil, etcdNames, serverUsage, time.Time{}}},
		{all.etcdServer, "etcd/client", leafSpec{"etcd-client", nil, nil, clientUsage, time.Time{}}},
		{all.etcdServer, "etcd/server-client", leafSpec{"etcd-server", nil, etcdNames, bothUsages, time.Time{}}},
		{all.etcdPeer, "etcd/peer-server-client", leafSpec{"etcd-peer", nil, etcdNames, bothUsages, time.Time{}}},
	} {
		if err := os.MkdirAll(filepath.Dir(p.tls(leaf.base)), 0700); err != nil {
			return err
		}
		if err := ensureLeaf(leaf.ca, p.tls(leaf.base), leaf.spec); err != nil {
			return fmt.Errorf("certificate %s: %w", leaf.base, err)
		}
	}
	return nil
}

// caHash is the hash in a full token: of the PEM as served for one certificate, of the root's DER for
// several (k3s.md §4.1).
func caHash(bundle []byte) (string, error) {
	certs, err := certutil.ParseCertsPEM(bundle)
	if err != nil {
		return "", err
	}
	content := bundle
	if len(certs) > 1 {
		content = certs[len(certs)-1].Raw
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]), nil
}
