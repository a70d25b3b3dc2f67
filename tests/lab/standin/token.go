package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

var bootstrapToken = regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}$`)

// token is a parsed K3s token.
type token struct {
	caHash   string // empty in a short token
	password string
	// bootstrap marks a token of the form id.secret, which joins agents only.
	bootstrap bool
}

// parseToken understands the three forms of k3s.md §4.1.
func parseToken(text string) (token, error) {
	if text == "" {
		return token{}, errors.New("token must not be empty")
	}
	if !strings.HasPrefix(text, "K10") {
		return token{password: text, bootstrap: bootstrapToken.MatchString(text)}, nil
	}
	hash, rest, found := strings.Cut(text[3:], "::")
	if !found {
		return token{}, errors.New("invalid token format")
	}
	if len(hash) != 64 {
		return token{}, errors.New("invalid token CA hash length")
	}
	if bootstrapToken.MatchString(rest) {
		return token{caHash: hash, password: rest, bootstrap: true}, nil
	}
	_, password, found := strings.Cut(rest, ":")
	if !found || password == "" {
		return token{}, errors.New("invalid token format")
	}
	return token{caHash: hash, password: password}, nil
}

// serverPassword reduces a server's token to its password.
func serverPassword(text string) (string, error) {
	parsed, err := parseToken(text)
	if err != nil || parsed.bootstrap {
		return "", errors.New("failed to normalize token; must be in format K10<CA-HASH>::<USERNAME>:<PASSWORD> or <PASSWORD>")
	}
	return parsed.password, nil
}

func fullToken(caPEM []byte, user, password string) (string, error) {
	hash, err := caHash(caPEM)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("K10%s::%s:%s", hash, user, password), nil
}

// tokenFromFlags reads token or token-file; the file wins.
func tokenFromFlags(o *options) (string, error) { return secretFromFlags(o, "token") }

func secretFromFlags(o *options, name string) (string, error) {
	if file := o.text(name + "-file"); file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		return strings.TrimSpace(string(data)), nil
	}
	return strings.TrimSpace(o.text(name)), nil
}

func randomHex(bytes int) string {
	data := make([]byte, bytes)
	if _, err := rand.Read(data); err != nil {
		panic(err)
	}
	return hex.EncodeToString(data)
}

// credentials are the passwords of the two supervisor users.
type credentials struct{ server, node string }

// writeTokenFiles writes passwd, token, agent-token and node-token of a server.
func writeTokenFiles(p paths, c credentials) error {
	passwd := fmt.Sprintf("%s,node,node,k3s:agent\n%s,server,server,k3s:server\n", c.node, c.server)
	if current, err := os.ReadFile(p.cred("passwd")); err != nil || string(current) != passwd {
		if err := writeFile(p.cred("passwd"), []byte(passwd), 0600); err != nil {
			return err
		}
	}
	ca, err := os.ReadFile(p.tls("server-ca.crt"))
	if err != nil {
		return err
	}
	full, err := fullToken(ca, "server", c.server)
	if err != nil {
		return err
	}
	if err := writeFile(p.server("token"), []byte(full+"\n"), 0600); err != nil {
		return err
	}
	if err := relink(p.server("token"), p.server("node-token")); err != nil {
		return err
	}
	if c.node == c.server {
		return relink(p.server("token"), p.server("agent-token"))
	}
	if full, err = fullToken(ca, "node", c.node); err != nil {
		return err
	}
	os.Remove(p.server("agent-token"))
	return writeFile(p.server("agent-token"), []byte(full+"\n"), 0600)
}

// readPasswords reads server/cred/passwd; missing users are empty.
func readPasswords(p paths) credentials {
	var c credentials
	data, _ := os.ReadFile(p.cred("passwd"))
	for _, line := range strings.Split(string(data), "\n") {
		fields := strings.Split(line, ",")
		if len(fields) < 2 {
			continue
		}
		switch fields[1] {
		case "server":
			c.server = fields[0]
		case "node":
			c.node = fields[0]
		}
	}
	return c
}
