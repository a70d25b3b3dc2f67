package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
)

// The bootstrap data are the files that all servers share. They live in the datastore below
// /bootstrap/<hash of the token>, encrypted with the token, and so they are part of every snapshot.

const bootstrapPrefix = "/bootstrap/"

var errOtherToken = errors.New("bootstrap data already found and encrypted with different token")

// bootstrapFile is one shared file with the time of its last change in seconds since 1970.
type bootstrapFile struct {
	Timestamp int64
	Content   []byte
}

type bootstrapData map[string]bootstrapFile

// bootstrapPaths names the shared files below server/.
var bootstrapPaths = []string{
	"tls/client-ca.crt", "tls/client-ca.key", "tls/server-ca.crt", "tls/server-ca.key",
	"tls/request-header-ca.crt", "tls/request-header-ca.key", "tls/service.key",
	"tls/etcd/server-ca.crt", "tls/etcd/server-ca.key", "tls/etcd/peer-ca.crt", "tls/etcd/peer-ca.key",
	"cred/passwd", "cred/ipsec.psk", "cred/encryption-config.json", "cred/encryption-state.json",
}

func collectBootstrap(p paths) (bootstrapData, error) {
	data := bootstrapData{}
	for _, name := range bootstrapPaths {
		content, err := os.ReadFile(p.server(name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(p.server(name))
		if err != nil {
			return nil, err
		}
		data[name] = bootstrapFile{info.ModTime().Unix(), content}
	}
	return data, nil
}

// reconcile brings the files on disk to the state of the datastore; a file that differs and is newer on
// disk stops the server, as in K3s. force overwrites it all the same (restore of a snapshot).
func (data bootstrapData) reconcile(p paths, force bool) error {
	var newer []string
	for name, file := range data {
		path := p.server(name)
		current, err := os.ReadFile(path)
		if err == nil && bytes.Equal(current, file.Content) {
			continue
		}
		if err == nil && !force {
			if info, statErr := os.Stat(path); statErr == nil && info.ModTime().Unix() > file.Timestamp {
				newer = append(newer, path)
				continue
			}
			logrus.Warnf("Updating %s from datastore", path)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0700); err != nil {
			return err
		}
		mode := os.FileMode(0600)
		if strings.HasSuffix(name, ".crt") {
			mode = 0644
		}
		if err := writeFile(path, file.Content, mode); err != nil {
			return err
		}
		when := time.Unix(file.Timestamp, 0)
		if err := os.Chtimes(path, when, when); err != nil {
			return err
		}
	}
	if len(newer) > 0 {
		return fmt.Errorf("%s newer than datastore and could cause a cluster outage. Remove the file(s) from "+
			"disk and restart to be recreated from datastore.", strings.Join(newer, ", "))
	}
	return nil
}

func bootstrapKey(password string) string {
	sum := sha256.Sum256([]byte(password))
	return bootstrapPrefix + hex.EncodeToString(sum[:])[:12]
}

func tokenCipher(password string, salt []byte) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha256.New, password, salt, 4096, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (data bootstrapData) encrypt(password string) ([]byte, error) {
	plain, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	salt := make([]byte, 28) // 16 bytes of salt and the nonce
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	gcm, err := tokenCipher(password, salt[:16])
	if err != nil {
		return nil, err
	}
	sealed := gcm.Seal(salt, salt[16:], plain, nil)
	return []byte(base64.StdEncoding.EncodeToString(sealed)), nil
}

func decryptBootstrap(text []byte, password string) (bootstrapData, error) {
	sealed, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil || len(sealed) < 28 {
		return nil, errors.New("bootstrap data is damaged")
	}
	gcm, err := tokenCipher(password, sealed[:16])
	if err != nil {
		return nil, err
	}
	plain, err := gcm.Open(nil, sealed[16:28], sealed[28:], nil)
	if err != nil {
		return nil, errOtherToken
	}
	var data bootstrapData
	return data, json.Unmarshal(plain, &data)
}

// chooseBootstrap picks the entry of a token among all bootstrap entries of a datastore. No entry at all
// is no data; entries of other tokens only are an error.
func chooseBootstrap(entries map[string][]byte, password string) (bootstrapData, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	text, found := entries[bootstrapKey(password)]
	if !found {
		return nil, errOtherToken
	}
	return decryptBootstrap(text, password)
}

// bootstrapFromClient reads the entries of a running datastore.
func bootstrapFromClient(ctx context.Context, client *clientv3.Client) (map[string][]byte, error) {
	response, err := client.Get(ctx, bootstrapPrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	entries := map[string][]byte{}
	for _, kv := range response.Kvs {
		if len(kv.Value) > 0 {
			entries[string(kv.Key)] = kv.Value
		}
	}
	return entries, nil
}

// bootstrapFromFile reads the entries from etcd's database file (or a snapshot) without an etcd. K3s
// starts a temporary etcd on 127.0.0.1:2399 for that; reading the file gives the same and is faster.
func bootstrapFromFile(path string) (map[string][]byte, error) {
	db, err := bolt.Open(path, 0400, &bolt.Options{ReadOnly: true, Timeout: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	entries := map[string][]byte{}
	err = db.View(func(tx *bolt.Tx) error {
		bucket := tx.Bucket([]byte("key"))
		if bucket == nil {
			return nil
		}
		// Revisions come in order, so the last one of a key wins; a revision ending in 't' is a deletion.
		return bucket.ForEach(func(revision, value []byte) error {
			if !bytes.Contains(value, []byte(bootstrapPrefix)) {
				return nil
			}
			var kv mvccpb.KeyValue
			if err := proto.Unmarshal(value, &kv); err != nil {
				return err
			}
			if !strings.HasPrefix(string(kv.Key), bootstrapPrefix) {
				return nil
			}
			if len(revision) == 18 && revision[17] == 't' {
				delete(entries, string(kv.Key))
			} else {
				entries[string(kv.Key)] = kv.Value
			}
			return nil
		})
	})
	return entries, err
}

// saveBootstrap stores the shared files under the token, and removes the entry of an old one.
func saveBootstrap(ctx context.Context, client *clientv3.Client, p paths, password, oldPassword string) error {
	data, err := collectBootstrap(p)
	if err != nil {
		return err
	}
	sealed, err := data.encrypt(password)
	if err != nil {
		return err
	}
	key := bootstrapKey(password)
	if err := putKey(ctx, client, key, sealed); err != nil {
		return err
	}
	logrus.Info("Saving cluster bootstrap data to datastore")
	if oldPassword != "" && oldPassword != password {
		return deleteKey(ctx, client, bootstrapKey(oldPassword))
	}
	return nil
}

// putKey writes a key with the transactions that kine understands: create, or update at a revision.
func putKey(ctx context.Context, client *clientv3.Client, key string, value []byte) error {
	for {
		current, err := client.Get(ctx, key)
		if err != nil {
			return err
		}
		revision := int64(0)
		if len(current.Kvs) > 0 {
			revision = current.Kvs[0].ModRevision
		}
		response, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
			Then(clientv3.OpPut(key, string(value))).
			Else(clientv3.OpGet(key)).Commit()
		if err != nil || response.Succeeded {
			return err
		}
	}
}

func deleteKey(ctx context.Context, client *clientv3.Client, key string) error {
	current, err := client.Get(ctx, key)
	if err != nil || len(current.Kvs) == 0 {
		return err
	}
	_, err = client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", current.Kvs[0].ModRevision)).
		Then(clientv3.OpDelete(key)).
		Else(clientv3.OpGet(key)).Commit()
	return err
}
