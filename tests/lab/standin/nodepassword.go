package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"golang.org/x/crypto/scrypt"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const nodePasswordDir = "/etc/rancher/node"

const passwordRejected = "Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may " +
	"not match server node-passwd entry, try enabling a unique node name with the --with-node-id flag"

// nodePassword reads the host's node password or makes it at the first start.
func nodePassword() (string, error) { return hostSecret("password", 16) }

// nodeID reads the suffix for with-node-id or makes it.
func nodeID() (string, error) { return hostSecret("id", 4) }

func hostSecret(name string, bytes int) (string, error) {
	path := nodePasswordDir + "/" + name
	if data, err := os.ReadFile(path); err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if err := os.MkdirAll(nodePasswordDir, 0755); err != nil {
		return "", err
	}
	secret := randomHex(bytes)
	return secret, writeFile(path, []byte(secret+"\n"), 0600)
}

func passwordSecret(node string) string { return node + ".node-password.k3s" }

// verifyNode compares a node's password with the Secret of its first contact, or makes that Secret. The
// number is the HTTP status of a refusal.
func (s *server) verifyNode(ctx context.Context, node, password string) (int, error) {
	if node == "" {
		return http.StatusBadRequest, errors.New("node name not set")
	}
	if password == "" {
		return http.StatusBadRequest, errors.New("node password not set")
	}
	if s.kube == nil {
		return http.StatusServiceUnavailable, errNotReady
	}
	secrets := s.kube.CoreV1().Secrets("kube-system")
	secret, err := secrets.Get(ctx, passwordSecret(node), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return s.rememberNode(ctx, node, password)
	}
	if err != nil {
		return http.StatusServiceUnavailable, err
	}
	if !matchesPassword(string(secret.Data["hash"]), password) {
		return http.StatusForbidden, errors.New(passwordRejected)
	}
	return 0, nil
}

func (s *server) rememberNode(ctx context.Context, node, password string) (int, error) {
	hash, err := hashPassword(password)
	if err != nil {
		return http.StatusInternalServerError, err
	}
	immutable := true
	_, err = s.kube.CoreV1().Secrets("kube-system").Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: passwordSecret(node), Namespace: "kube-system"},
		Immutable:  &immutable, Data: map[string][]byte{"hash": []byte(hash)}}, metav1.CreateOptions{})
	if err != nil {
		return http.StatusServiceUnavailable, err
	}
	return 0, nil
}

const scryptCost = 1 << 12

func hashPassword(password string) (string, error) {
	salt := make([]byte, 8)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	key, err := scrypt.Key([]byte(password), salt, scryptCost, 8, 1, 32)
	return fmt.Sprintf("$1:%x:%d:8:1:%s", salt, scryptCost, base64.RawStdEncoding.EncodeToString(key)), err
}

func matchesPassword(hash, password string) bool {
	parts := strings.Split(hash, ":")
	if len(parts) != 6 {
		return false
	}
	var salt []byte
	if _, err := fmt.Sscanf(parts[1], "%x", &salt); err != nil {
		return false
	}
	key, err := scrypt.Key([]byte(password), salt, scryptCost, 8, 1, 32)
	if err != nil {
		return false
	}
	wanted, err := base64.RawStdEncoding.DecodeString(parts[5])
	return err == nil && subtle.ConstantTimeCompare(key, wanted) == 1
}
