package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiserverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
)

const annotationEncryption = "k3s.io/encryption-config-hash"

// encryptionRequest is the body of PUT /v1-k3s/encrypt/config.
type encryptionRequest struct {
	Stage  *string `json:"stage,omitempty"`
	Enable *bool   `json:"enable,omitempty"`
}

// encryptionState is the answer of /v1-k3s/encrypt/status and of status -o json.
type encryptionState struct {
	Stage        string   `json:"stage"`
	ActiveKey    string   `json:"activekey"`
	Enable       *bool    `json:"enable,omitempty"`
	HashMatch    bool     `json:"hashmatch,omitempty"`
	HashError    string   `json:"hasherror,omitempty"`
	InactiveKeys []string `json:"inactivekeys,omitempty"`
}

// encryptionKeys is what the stand-in keeps of an EncryptionConfiguration.
type encryptionKeys struct {
	provider string // aescbc or secretbox
	enabled  bool
	keys     []apiserverv1.Key // the first one encrypts
}

func newEncryptionKey(provider string) apiserverv1.Key {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		panic(err)
	}
	data, _ := json.Marshal(secret)
	return apiserverv1.Key{Name: provider + "key", Secret: strings.Trim(string(data), `"`)}
}

func (k encryptionKeys) save(p paths) error {
	provider := apiserverv1.ProviderConfiguration{}
	if k.provider == "secretbox" {
		provider.Secretbox = &apiserverv1.SecretboxConfiguration{Keys: k.keys}
	} else {
		provider.AESCBC = &apiserverv1.AESConfiguration{Keys: k.keys}
	}
	identity := apiserverv1.ProviderConfiguration{Identity: &apiserverv1.IdentityConfiguration{}}
	order := []apiserverv1.ProviderConfiguration{provider, identity}
	if !k.enabled {
		order = []apiserverv1.ProviderConfiguration{identity, provider}
	}
	data, err := json.Marshal(apiserverv1.EncryptionConfiguration{
		TypeMeta:  metav1.TypeMeta{Kind: "EncryptionConfiguration", APIVersion: "apiserver.config.k8s.io/v1"},
		Resources: []apiserverv1.ResourceConfiguration{{Resources: []string{"secrets"}, Providers: order}}})
	if err != nil {
		return err
	}
	return writeFile(p.cred("encryption-config.json"), data, 0600)
}

func loadEncryption(p paths) (encryptionKeys, error) {
	var k encryptionKeys
	data, err := os.ReadFile(p.cred("encryption-config.json"))
	if err != nil {
		return k, err
	}
	var config apiserverv1.EncryptionConfiguration
	if err := json.Unmarshal(data, &config); err != nil {
		return k, err
	}
	if len(config.Resources) != 1 {
		return k, errors.New("unexpected encryption configuration")
	}
	for i, provider := range config.Resources[0].Providers {
		switch {
		case provider.AESCBC != nil:
			k.provider, k.keys, k.enabled = "aescbc", provider.AESCBC.Keys, i == 0
		case provider.Secretbox != nil:
			k.provider, k.keys, k.enabled = "secretbox", provider.Secretbox.Keys, i == 0
		}
	}
	return k, nil
}

func saveStage(p paths, stage string) error {
	return writeFile(p.cred("encryption-state.json"), []byte(stage), 0600)
}

func loadStage(p paths) string {
	stage, err := readTrimmed(p.cred("encryption-state.json"))
	if err != nil {
		return "start"
	}
	return stage
}

// ensureEncryption makes the first key of a new cluster; a joining server has it from the bootstrap data.
func ensureEncryption(c *serverConfig, fresh bool) error {
	if !fresh || !c.flag("secrets-encryption") || exists(c.cred("encryption-config.json")) {
		return nil
	}
	provider := c.text("secrets-encryption-provider")
	if provider == "" {
		provider = "aescbc"
	}
	if provider != "aescbc" && provider != "secretbox" {
		return fmt.Errorf("unsupported secrets-encryption-provider %s", provider)
	}
	keys := encryptionKeys{provider: provider, enabled: true, keys: []apiserverv1.Key{newEncryptionKey(provider)}}
	if err := saveStage(c.paths, "start"); err != nil {
		return err
	}
	return keys.save(c.paths)
}

// encryptionHash identifies the configuration that this process works with.
func encryptionHash(p paths) string {
	data, err := os.ReadFile(p.cred("encryption-config.json"))
	if err != nil {
		return ""
	}
	return loadStage(p) + "-" + sha256Hex(data)
}

func (s *server) encryptionStatus(ctx context.Context) (*encryptionState, error) {
	if !exists(s.c.cred("encryption-config.json")) {
		return &encryptionState{}, nil
	}
	keys, err := loadEncryption(s.c.paths)
	if err != nil {
		return nil, err
	}
	kind := map[string]string{"aescbc": "AES-CBC", "secretbox": "XSalsa20-POLY1305"}[keys.provider]
	state := &encryptionState{Stage: loadStage(s.c.paths), Enable: &keys.enabled, HashMatch: true}
	for i, key := range keys.keys {
		if i == 0 {
			state.ActiveKey = kind + " " + key.Name
		} else {
			state.InactiveKeys = append(state.InactiveKeys, kind+" "+key.Name)
		}
	}
	if s.kube == nil {
		return state, nil
	}
	nodes, err := s.kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: labelControlPlane + "=true"})
	if err != nil {
		return nil, err
	}
	own := encryptionHash(s.c.paths)
	for _, n := range nodes.Items {
		if hash := n.Annotations[annotationEncryption]; hash != "" && hash != own && n.Name != s.c.nodeName {
			state.HashMatch = false
			state.HashError = fmt.Sprintf("hash does not match between %s and %s", s.c.nodeName, n.Name)
		}
	}
	return state, nil
}

// changeEncryption handles enable, disable and the stages of a key rotation.
func (s *server) changeEncryption(ctx context.Context, request encryptionRequest) error {
	keys, err := loadEncryption(s.c.paths)
	if err != nil {
		return errors.New("secrets encryption is not configured")
	}
	if request.Enable != nil {
		keys.enabled = *request.Enable
		return s.applyEncryption(ctx, keys, "start")
	}
	stage := ""
	if request.Stage != nil {
		stage = *request.Stage
	}
	fresh := newEncryptionKey(keys.provider)
	fresh.Name += "-" + time.Now().UTC().Format(time.RFC3339)
	switch current := loadStage(s.c.paths); {
	case stage == "rotate_keys":
		keys.keys = append([]apiserverv1.Key{fresh}, keys.keys...)
		if err := s.applyEncryption(ctx, keys, "reencrypt_active"); err != nil {
			return err
		}
		return s.finishReencryption(ctx, keys)
	case keys.provider == "secretbox":
		return errors.New("not supported with secretbox")
	case stage == "prepare" && (current == "start" || current == "reencrypt_finished"):
		keys.keys = append(keys.keys, fresh)
		return s.applyEncryption(ctx, keys, "prepare")
	case stage == "rotate" && current == "prepare":
		last := len(keys.keys) - 1
		keys.keys = append([]apiserverv1.Key{keys.keys[last]}, keys.keys[:last]...)
		return s.applyEncryption(ctx, keys, "rotate")
	case stage == "reencrypt_active" && current == "rotate":
		if err := s.applyEncryption(ctx, keys, "reencrypt_active"); err != nil {
			return err
		}
		return s.finishReencryption(ctx, keys)
	default:
		return fmt.Errorf("%s is not allowed in stage %s", stage, current)
	}
}

func (s *server) applyEncryption(ctx context.Context, keys encryptionKeys, stage string) error {
	if err := saveStage(s.c.paths, stage); err != nil {
		return err
	}
	if err := keys.save(s.c.paths); err != nil {
		return err
	}
	s.encryptionHash.Store(encryptionHash(s.c.paths))
	if err := saveBootstrap(ctx, s.store.client, s.c.paths, s.secret.server, ""); err != nil {
		return err
	}
	return sleep(ctx, 3*encryptionReload) // until the API server has read the file again
}

// finishReencryption writes all Secrets with the new key and drops the old ones.
func (s *server) finishReencryption(ctx context.Context, keys encryptionKeys) error {
	secrets, err := s.kube.CoreV1().Secrets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range secrets.Items {
		secret := &secrets.Items[i]
		if _, err := s.kube.CoreV1().Secrets(secret.Namespace).Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	keys.keys = keys.keys[:1]
	return s.applyEncryption(ctx, keys, "reencrypt_finished")
}

var encryptFlags = []flagSpec{{Name: "data-dir", Type: "string", Aliases: []string{"d"}},
	{Name: "token", Type: "string", Aliases: []string{"t"}}, {Name: "server", Type: "string", Aliases: []string{"s"},
		Default: "https://127.0.0.1:6443"}, {Name: "output", Type: "string", Aliases: []string{"o"}},
	{Name: "force", Type: "bool", Aliases: []string{"f"}}, {Name: "skip", Type: "bool"}}

// encryptCommand is k3s secrets-encrypt (k3s.md §8.4).
func encryptCommand(args []string) {
	if len(args) == 0 {
		printHelp("secrets-encrypt", encryptFlags)
		return
	}
	o, err := parseFlags("secrets-encrypt "+args[0], encryptFlags, args[1:])
	if err != nil {
		usageError("secrets-encrypt "+args[0], encryptFlags, err)
	}
	if err := runEncryptCommand(args[0], o); err != nil {
		fatal(err)
	}
}

func runEncryptCommand(sub string, o *options) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	connection, err := localSupervisor(ctx, commandPaths(o), o.text("server"), o.text("token"))
	if err != nil {
		return err
	}
	connection.client.Timeout = 2 * time.Minute
	yes, no := true, false
	stage := func(name string) encryptionRequest { return encryptionRequest{Stage: &name} }
	rotated := "keys rotated, reencryption started"
	if releasedIn("1.32.4/1.33.0") {
		rotated = "keys rotated, reencryption finished"
	}
	actions := map[string]struct {
		request encryptionRequest
		text    string
	}{
		"enable":      {encryptionRequest{Enable: &yes}, "secrets-encryption enabled"},
		"disable":     {encryptionRequest{Enable: &no}, "secrets-encryption disabled"},
		"prepare":     {stage("prepare"), "prepare completed successfully"},
		"rotate":      {stage("rotate"), "rotate completed successfully"},
		"reencrypt":   {stage("reencrypt_active"), "reencryption started"},
		"rotate-keys": {stage("rotate_keys"), rotated},
	}
	if sub == "status" {
		var state encryptionState
		if err := connection.getJSON(ctx, "/v1-k3s/encrypt/status", &state); err != nil {
			return fmt.Errorf("see server log for details: %w", err)
		}
		return printEncryption(state, o.text("output"))
	}
	action, found := actions[sub]
	if !found {
		return fmt.Errorf("unknown command %s", sub)
	}
	body, err := json.Marshal(action.request)
	if err != nil {
		return err
	}
	if _, err := connection.request(ctx, http.MethodPut, "/v1-k3s/encrypt/config", nil, body); err != nil {
		return fmt.Errorf("see server log for details: %w", err)
	}
	fmt.Println(action.text)
	return nil
}

func printEncryption(state encryptionState, format string) error {
	if format == "json" {
		data, err := json.MarshalIndent(state, "", "\t")
		fmt.Println(string(data))
		return err
	}
	if state.Enable == nil {
		fmt.Println("Encryption Status: Disabled, no configuration file found")
		return nil
	}
	status := "Disabled"
	if *state.Enable {
		status = "Enabled"
	}
	hashes := "All hashes match"
	if !state.HashMatch {
		hashes = state.HashError
	}
	fmt.Printf("Encryption Status: %s\nCurrent Rotation Stage: %s\nServer Encryption Hashes: %s\n\n", status, state.Stage, hashes)
	fmt.Printf("Active  Key Type  Name\n------  --------  ----\n")
	for i, key := range append([]string{state.ActiveKey}, state.InactiveKeys...) {
		mark := " "
		if i == 0 && *state.Enable {
			mark = "*"
		}
		kind, name, _ := strings.Cut(key, " ")
		fmt.Printf(" %s      %-8s  %s\n", mark, kind, name)
	}
	fmt.Println()
	return nil
}
