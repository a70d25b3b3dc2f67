package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"time"

	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// makePair makes a CA of its own and a server certificate under it; all three are PEM.
func makePair(names []string) (ca, cert, private []byte, err error) {
	authority, err := makeAuthority(names[0] + "-ca")
	if err != nil {
		return nil, nil, nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, nil, nil, err
	}
	template := certificateTemplate(names[0], leafLife)
	template.ExtKeyUsage = serverUsage
	addNames(template, names)
	der, err := x509.CreateCertificate(rand.Reader, template, authority.cert, key.Public(), authority.key)
	if err != nil {
		return nil, nil, nil, err
	}
	private, err = encodeKey(key)
	return authority.pem, encodeCert(der), private, err
}

// makeAuthority makes a self-signed CA in memory.
func makeAuthority(name string) (*authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := certificateTemplate(name, authorityLn)
	markAuthority(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return parseAuthority(encodeCert(der), key)
}

func parseAuthority(pemData []byte, key crypto.Signer) (*authority, error) {
	certs, err := certutil.ParseCertsPEM(pemData)
	if err != nil {
		return nil, err
	}
	return &authority{cert: certs[0], key: key, pem: pemData}, nil
}

func certificateTemplate(commonName string, life time.Duration) *x509.Certificate {
	now := time.Now().Truncate(time.Second)
	return &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: commonName}, NotBefore: now,
		NotAfter: now.Add(life), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment}
}

func markAuthority(template *x509.Certificate) {
	template.IsCA = true
	template.KeyUsage |= x509.KeyUsageCertSign | x509.KeyUsageCRLSign
}

func addNames(template *x509.Certificate, names []string) {
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if name != "" {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
}

// makePrivateKey makes a key as a Certificate's spec.privateKey asks for it.
func makePrivateKey(algorithm string, size int64) (crypto.Signer, error) {
	switch algorithm {
	case "", "RSA":
		if size == 0 {
			size = 2048
		}
		return rsa.GenerateKey(rand.Reader, int(size))
	case "ECDSA":
		curve := map[int64]elliptic.Curve{0: elliptic.P256(), 256: elliptic.P256(), 384: elliptic.P384(),
			521: elliptic.P521()}[size]
		if curve == nil {
			return nil, fmt.Errorf("unsupported ecdsa keysize specified: %d", size)
		}
		return ecdsa.GenerateKey(curve, rand.Reader)
	case "Ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("unsupported private key algorithm specified: %s", algorithm)
}

// encodePrivateKey writes a key as PKCS#1 or SEC 1 unless PKCS#8 is asked for or needed.
func encodePrivateKey(key crypto.Signer, encoding string) ([]byte, error) {
	if _, edwards := key.(ed25519.PrivateKey); encoding != "PKCS8" && !edwards {
		return encodeKey(key)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// parsePair reads the first certificate of a chain and checks that the key belongs to it.
func parsePair(chain, private []byte) (*x509.Certificate, crypto.Signer, error) {
	if _, err := tls.X509KeyPair(chain, private); err != nil {
		return nil, nil, err
	}
	certs, err := certutil.ParseCertsPEM(chain)
	if err != nil {
		return nil, nil, err
	}
	key, err := keyutil.ParsePrivateKeyPEM(private)
	if err != nil {
		return nil, nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("not a signing key")
	}
	return certs[0], signer, nil
}
