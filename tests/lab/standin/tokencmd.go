package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// rotateToken re-encrypts the bootstrap data and rewrites this server's token files; the others follow with
// their next start.
func (s *server) rotateToken(ctx context.Context, text string) error {
	parsed, err := parseToken(text)
	if err != nil {
		return err
	}
	if parsed.bootstrap {
		return errors.New("failed to normalize token")
	}
	old := s.secret
	fresh := credentials{server: parsed.password, node: old.node}
	if old.node == old.server {
		fresh.node = parsed.password
	}
	if err := writeTokenFiles(s.c.paths, fresh); err != nil {
		return err
	}
	if err := saveBootstrap(ctx, s.store.client, s.c.paths, fresh.server, old.server); err != nil {
		return err
	}
	s.secret = fresh
	return nil
}

var tokenFlags = []flagSpec{{Name: "data-dir", Type: "string", Aliases: []string{"d"}},
	{Name: "kubeconfig", Type: "string"}, {Name: "description", Type: "string"},
	{Name: "groups", Type: "slice", Default: "system:bootstrappers:k3s:default-node-token"},
	{Name: "ttl", Type: "duration", Default: "24h"}, {Name: "usages", Type: "slice"},
	{Name: "output", Type: "string", Aliases: []string{"o"}, Default: "text"},
	{Name: "token", Type: "string", Aliases: []string{"t"}}, {Name: "server", Type: "string", Aliases: []string{"s"},
		Default: "https://127.0.0.1:6443"}, {Name: "new-token", Type: "string"}}

// tokenCommand is k3s token create|list|delete|generate|rotate (k3s.md §8.3).
func tokenCommand(args []string) {
	if len(args) == 0 {
		printHelp("token", tokenFlags)
		return
	}
	sub := args[0]
	o, err := parseFlags("token "+sub, tokenFlags, args[1:])
	if err != nil {
		usageError("token "+sub, tokenFlags, err)
	}
	run := map[string]func(*options) error{"create": createToken, "list": listTokens, "ls": listTokens,
		"delete": deleteToken, "generate": generateToken, "rotate": rotateTokenCommand}[sub]
	if run == nil {
		printHelp("token", tokenFlags)
		os.Exit(3)
	}
	if err := run(o); err != nil {
		fatal(err)
	}
}

func commandPaths(o *options) paths {
	if dir := o.text("data-dir"); dir != "" {
		return paths{dir}
	}
	return paths{dataDirFor(nil)}
}

func adminClient(o *options) (kubernetes.Interface, error) {
	file := o.text("kubeconfig")
	if file == "" {
		file = defaultKubeconfig
	}
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

func newBootstrapToken() string { return randomHex(3) + "." + randomHex(8) }

func generateToken(*options) error {
	fmt.Println(newBootstrapToken())
	return nil
}

func createToken(o *options) error {
	text := newBootstrapToken()
	if len(o.args) > 0 {
		text = o.args[0]
	}
	if !bootstrapToken.MatchString(text) {
		return fmt.Errorf("the token %q is not of the form [a-z0-9]{6}.[a-z0-9]{16}", text)
	}
	client, err := adminClient(o)
	if err != nil {
		return err
	}
	ttl, err := time.ParseDuration(o.text("ttl"))
	if err != nil {
		return err
	}
	id, secret, _ := strings.Cut(text, ".")
	data := map[string]string{"token-id": id, "token-secret": secret, "usage-bootstrap-authentication": "true",
		"usage-bootstrap-signing": "true", "auth-extra-groups": strings.Join(o.split("groups"), ",")}
	if ttl > 0 {
		data["expiration"] = time.Now().UTC().Add(ttl).Format(time.RFC3339)
	}
	if o.text("description") != "" {
		data["description"] = o.text("description")
	}
	ctx := context.Background()
	_, err = client.CoreV1().Secrets("kube-system").Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + id}, Type: "bootstrap.kubernetes.io/token",
		StringData: data}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(commandPaths(o).tls("server-ca.crt"))
	if err != nil {
		return err
	}
	hash, err := caHash(ca)
	fmt.Printf("K10%s::%s\n", hash, text)
	return err
}

func bootstrapSecrets(client kubernetes.Interface) ([]corev1.Secret, error) {
	list, err := client.CoreV1().Secrets("kube-system").List(context.Background(),
		metav1.ListOptions{FieldSelector: "type=bootstrap.kubernetes.io/token"})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

func listTokens(o *options) error {
	client, err := adminClient(o)
	if err != nil {
		return err
	}
	secrets, err := bootstrapSecrets(client)
	if err != nil {
		return err
	}
	if o.text("output") == "json" {
		for _, secret := range secrets {
			printJSON(map[string]string{"token": string(secret.Data["token-id"]) + "." + string(secret.Data["token-secret"]),
				"expires": string(secret.Data["expiration"]), "description": string(secret.Data["description"])})
		}
		return nil
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "TOKEN\tTTL\tEXPIRES\tUSAGES\tDESCRIPTION\tEXTRA GROUPS")
	for _, secret := range secrets {
		ttl, expires, description := "<forever>", "<never>", "<none>"
		if text := string(secret.Data["expiration"]); text != "" {
			expires = text
			if end, err := time.Parse(time.RFC3339, text); err == nil {
				ttl = time.Until(end).Round(time.Minute).String()
			}
		}
		if text := string(secret.Data["description"]); text != "" {
			description = text
		}
		fmt.Fprintf(out, "%s.%s\t%s\t%s\tauthentication,signing\t%s\t%s\n", secret.Data["token-id"],
			secret.Data["token-secret"], ttl, expires, description, secret.Data["auth-extra-groups"])
	}
	return out.Flush()
}

func deleteToken(o *options) error {
	if len(o.args) == 0 {
		return errors.New("missing argument; 'token delete' is missing token")
	}
	client, err := adminClient(o)
	if err != nil {
		return err
	}
	for _, text := range o.args {
		id, _, _ := strings.Cut(text, ".")
		err := client.CoreV1().Secrets("kube-system").Delete(context.Background(), "bootstrap-token-"+id, metav1.DeleteOptions{})
		if err != nil {
			return err
		}
		fmt.Printf("bootstrap token %q deleted\n", id)
	}
	return nil
}

func rotateTokenCommand(o *options) error {
	fmt.Println("\033[33mWARNING\033[0m: Recommended to keep a record of the old token. If restoring from a snapshot, " +
		"you must use the token associated with that snapshot.")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	connection, err := localSupervisor(ctx, commandPaths(o), o.text("server"), o.text("token"))
	if err != nil {
		return err
	}
	fresh := o.text("new-token")
	if fresh == "" {
		fresh = randomHex(16)
	}
	body, err := json.Marshal(map[string]string{"newToken": fresh})
	if err != nil {
		return err
	}
	if _, err := connection.request(ctx, http.MethodPut, "/v1-k3s/token", nil, body); err != nil {
		return fmt.Errorf("see server log for details: %w", err)
	}
	fmt.Println("Token rotated, restart k3s nodes with new token")
	return nil
}
