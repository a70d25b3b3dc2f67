package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"regexp"
	"strings"
	"text/template"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

//go:embed platform.yaml
var platformYAML []byte

// platformTable is platform.yaml: which operator does what.
type platformTable struct {
	Operators   map[string]operatorRow `json:"operators"`
	Definitions []definitionRow        `json:"definitions"`
	Webhooks    []webhookRow           `json:"webhooks"`
	// Conversions names definitions whose charts bring a conversion webhook.
	Conversions []string     `json:"conversions"`
	Defaults    []defaultRow `json:"defaults"`
	Jobs        []jobRow     `json:"jobs"`
	Objects     []objectRow  `json:"objects"`
}

// operatorRow names the workloads ("<Kind>/<name>|<name with *>") that all must have a Ready pod.
type operatorRow struct {
	Workloads []string `json:"workloads"`
}

// definitionRow names the custom resource definitions that an operator registers when it runs: those of a file of
// the lab (crds/<file>), else permissive ones, each as "<plural> <Kind> <scope> <versions, the stored one first>".
type definitionRow struct {
	Operator string   `json:"operator"`
	File     string   `json:"file"`
	Group    string   `json:"group"`
	Names    []string `json:"names"`
}

// webhookRow is a Service behind which an operator answers webhooks. The operator keeps a certificate in the
// Secret and, with inject, writes its CA into every configuration that names the Service.
type webhookRow struct {
	Operator string `json:"operator"`
	Service  string `json:"service"`
	Secret   string `json:"secret"`
	Inject   string `json:"inject"` // "" never, "always", "empty" where no CA is set
	// Keys are the names of CA, certificate and key in the Secret; default ca.crt, tls.crt, tls.key.
	Keys [3]string `json:"keys"`
}

// defaultRow is what a mutating webhook adds to an object of a kind where it is absent.
type defaultRow struct {
	Kind   string         `json:"kind"` // <Kind>.<group>
	Object map[string]any `json:"object"`
}

// jobRow is what the pod of a Job (by name) does before it ends.
type jobRow struct {
	Name string `json:"name"`
	// Makes are Secrets with a certificate.
	Makes []secretRow `json:"makes"`
	// Injects names the Secret whose CA goes into the webhook configurations of the pattern.
	Injects *injectRow `json:"injects"`
	// Needs is a Service that must have a ready endpoint, and configurations of it with a CA.
	Needs string `json:"needs"`
}

type injectRow struct {
	Secret         string `json:"secret"`
	Key            string `json:"key"`
	Configurations string `json:"configurations"`
}

// secretRow is a Secret that is made when it is missing and then never touched.
type secretRow struct {
	Name        string            `json:"name"`
	Type        string            `json:"type"`
	Labels      map[string]string `json:"labels"`
	Data        map[string]string `json:"data"`        // templates
	Certificate []string          `json:"certificate"` // names, templates: ca.crt, tls.crt, tls.key are added
	Keys        [3]string         `json:"keys"`
}

// objectRow is what an operator does for each object of a resource, or once when the resource is "".
type objectRow struct {
	ID          string            `json:"id"`
	Operator    string            `json:"operator"`
	Needs       []string          `json:"needs"`    // further operators
	Resource    string            `json:"resource"` // several are separated by |
	When        string            `json:"when"`     // template that must give "true"
	Secrets     []secretRow       `json:"secrets"`
	Make        string            `json:"make"`
	Once        bool              `json:"once"` // what exists is never changed
	Unowned     bool              `json:"unowned"`
	Status      string            `json:"status"`
	Annotations map[string]string `json:"annotations"`
	Finalizer   string            `json:"finalizer"`

	when, make, status *template.Template
	parsed             map[string]*template.Template
}

// loadPlatformTable parses the embedded table and its templates.
func loadPlatformTable() (*platformTable, error) {
	table := &platformTable{}
	if err := yaml.UnmarshalStrict(platformYAML, table); err != nil {
		return nil, fmt.Errorf("platform.yaml: %w", err)
	}
	for i := range table.Objects {
		row := &table.Objects[i]
		if _, found := table.Operators[row.Operator]; !found {
			return nil, fmt.Errorf("platform.yaml: row %s: unknown operator %q", row.ID, row.Operator)
		}
		row.parsed = map[string]*template.Template{}
		for _, text := range row.texts() {
			parsed, err := template.New(row.ID).Option("missingkey=zero").Funcs(noFunctions).Parse(text)
			if err != nil {
				return nil, fmt.Errorf("platform.yaml: row %s: %w", row.ID, err)
			}
			row.parsed[text] = parsed
		}
	}
	return table, nil
}

func (r *objectRow) texts() []string {
	texts := []string{r.When, r.Make, r.Status}
	for _, text := range r.Annotations {
		texts = append(texts, text)
	}
	for _, secret := range r.Secrets {
		texts = append(texts, secret.Name)
		texts = append(texts, secret.Certificate...)
		for _, text := range secret.Data {
			texts = append(texts, text)
		}
	}
	return texts
}

// view is what the templates of a row see.
type view struct {
	O         map[string]any // the object, or the operator's workload
	Name      string
	Namespace string
	Operator  string // namespace of the operator
	Random    string // the same for all entries of one Secret
}

// noFunctions lets templates be parsed before the functions that need a context are known.
var noFunctions = (&platform{}).functions(context.Background())

// functions are what templates may call besides Go's own.
func (p *platform) functions(ctx context.Context) template.FuncMap {
	return template.FuncMap{
		"get": func(object any, path string, fallback ...any) any { return dig(object, path, fallback...) },
		"json": func(value any) (string, error) {
			data, err := json.Marshal(value)
			return string(data), err
		},
		"hash": func(parts ...string) string {
			sum := fnv.New32a()
			sum.Write([]byte(strings.Join(parts, "/")))
			return fmt.Sprintf("%08x", sum.Sum32())
		},
		"base64":   func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) },
		"random":   func(bytes int) string { return randomHex(bytes) },
		"list":     func(items ...any) []any { return items },
		"until":    func(count any) []int { return make([]int, toInt(count)) },
		"add":      func(a, b any) int64 { return toInt(a) + toInt(b) },
		"min":      func(a, b any) int64 { return min(toInt(a), toInt(b)) },
		"trim":     strings.TrimSuffix,
		"replace":  strings.ReplaceAll,
		"contains": strings.Contains,
		"cond":     conditionText,
		"yes":      func(value bool) string { return map[bool]string{true: "True", false: "False"}[value] },
		"ready": func(kind, namespace, name string) int64 {
			workload := p.known(ctx, workloadResources[kind], namespace, name)
			if workload == nil {
				return 0
			}
			return readyReplicas(workload)
		},
		"podReady": func(namespace, name string) bool {
			pod := p.known(ctx, podResource, namespace, name)
			return pod != nil && conditionStatus(pod, string(corev1.PodReady)) == "True"
		},
		"secretExists": func(namespace, name string) bool { return p.known(ctx, secretResource, namespace, name) != nil },
		"find": func(resource, namespace, name string) map[string]any {
			gvr, known := p.follow(ctx, resource)
			if !known {
				return nil
			}
			if found := p.known(ctx, gvr, namespace, name); found != nil {
				return found.Object
			}
			return nil
		},
		"all": func(resource string) []map[string]any {
			var found []map[string]any
			if gvr, known := p.follow(ctx, resource); known {
				for _, object := range p.list(gvr) {
					found = append(found, object.Object)
				}
			}
			return found
		},
		"config": func(namespace, name, entry string) string {
			if config, err := p.configMap(ctx, namespace, name); err == nil {
				return config.Data[entry]
			}
			return ""
		},
		"endpoints": func(namespace, name string) bool { return p.serviceReady(ctx, namespace, name) },
		"secretText": func(namespace, name, entry string) (string, error) {
			secret, err := p.secret(ctx, namespace, name)
			if err != nil {
				return "", err // it is there in a later pass
			}
			return string(secret.Data[entry]), nil
		},
		"settings": settingsIn,
		"text":     func(value any) string { return fmt.Sprint(value) },
		"upper":    strings.ToUpper, "lower": strings.ToLower,
		"int": toInt, "toInt": toInt,
		"neg":       func(value any) int64 { return -toInt(value) },
		"bit":       func(value bool) int { return map[bool]int{true: 1}[value] },
		"dict":      func() map[string]any { return map[string]any{} },
		"put":       func(target map[string]any, name string, value any) string { target[name] = value; return "" },
		"merge":     mergeTexts,
		"imageTag":  imageTag,
		"env":       environmentValue,
		"addresses": serviceAddresses,
		"attached":  func(gateway map[string]any, listener string) int { return p.attachedRoutes(ctx, gateway, listener) },
		"usedBy":    func(namespace, claim string) string { return p.podUsing(namespace, claim) },
		"isTrue": func(object map[string]any, kind string) bool {
			return conditionStatus(&unstructured.Unstructured{Object: object}, kind) == "True"
		},
	}
}

// dig follows a dotted path through maps; a missing or empty value gives the fallback.
func dig(object any, path string, fallback ...any) any {
	value := object
	for _, part := range strings.Split(path, ".") {
		fields, ok := value.(map[string]any)
		if !ok {
			value = nil
			break
		}
		value = fields[part]
	}
	if value == nil || value == "" {
		if len(fallback) > 0 {
			return fallback[0]
		}
		return ""
	}
	return value
}

func toInt(value any) int64 {
	switch number := value.(type) {
	case int64:
		return number
	case int:
		return int64(number)
	case float64:
		return int64(number)
	}
	return 0
}

// conditionText is one item of a list of conditions, in YAML's flow style.
func conditionText(kind, status, reason, message string, generation ...any) string {
	condition := map[string]any{"type": kind, "status": status, "reason": reason, "message": message,
		"lastTransitionTime": nowText}
	if len(generation) > 0 {
		condition["observedGeneration"] = toInt(generation[0])
	}
	data, _ := json.Marshal(condition)
	return string(data)
}

// render runs one of a row's templates.
func (p *platform) render(ctx context.Context, row *objectRow, text string, seen view) (string, error) {
	parsed, err := row.parsed[text].Clone()
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := parsed.Funcs(p.functions(ctx)).Execute(&out, seen); err != nil {
		return "", err
	}
	return out.String(), nil
}

// nowText stands for the present time in a status; a value that is there already stays.
const nowText = "NOW"

// parseObject reads YAML into the types that unstructured objects have.
func parseObject(text string) (map[string]any, error) {
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return nil, err
	}
	result := map[string]any{}
	if string(data) == "null" {
		return result, nil
	}
	return result, utiljson.Unmarshal(data, &result)
}

// settle fills the times of a wanted status: a condition keeps its time as long as its status is the same, and
// conditions of others stay.
func settle(current, wanted any, now time.Time) any {
	switch fresh := wanted.(type) {
	case map[string]any:
		old, _ := current.(map[string]any)
		for name, value := range fresh {
			if items, ok := value.([]any); ok && name == "conditions" {
				known, _ := old[name].([]any)
				fresh[name] = settleConditions(known, items, now)
				continue
			}
			fresh[name] = settle(old[name], value, now)
		}
	case []any:
		old, _ := current.([]any)
		for i, value := range fresh {
			var before any
			if i < len(old) {
				before = old[i]
			}
			fresh[i] = settle(before, value, now)
		}
	case string:
		if fresh == nowText {
			if text, ok := current.(string); ok && text != "" {
				return text
			}
			return timeText(now)
		}
	}
	return wanted
}

func settleConditions(current, wanted []any, now time.Time) []any {
	kinds := map[any]bool{}
	for i, item := range wanted {
		condition, ok := item.(map[string]any)
		if !ok {
			continue
		}
		kinds[condition["type"]] = true
		var before any
		for _, other := range current {
			if old, ok := other.(map[string]any); ok && old["type"] == condition["type"] &&
				old["status"] == condition["status"] {
				before = other
			}
		}
		wanted[i] = settle(before, condition, now)
	}
	for _, other := range current {
		if old, ok := other.(map[string]any); ok && !kinds[old["type"]] {
			wanted = append(wanted, other)
		}
	}
	return wanted
}

// mergeTexts joins maps; the later wins.
func mergeTexts(maps ...any) map[string]string {
	merged := map[string]string{}
	for _, one := range maps {
		copyTexts(merged, one)
	}
	return merged
}

// containersOf returns the containers of a workload.
func containersOf(workload map[string]any) []any {
	containers, _ := dig(workload, "spec.template.spec.containers").([]any)
	return containers
}

// imageTag is the tag of a workload's first image.
func imageTag(workload map[string]any) string {
	for _, container := range containersOf(workload) {
		image, _ := dig(container, "image").(string)
		if at := strings.LastIndex(image, ":"); at > strings.LastIndex(image, "/") {
			return image[at+1:]
		}
	}
	return "latest"
}

// environmentValue is the value of a variable of a workload's first container, or the fallback.
func environmentValue(workload map[string]any, name, fallback string) string {
	for _, container := range containersOf(workload) {
		variables, _ := dig(container, "env").([]any)
		for _, variable := range variables {
			if value, ok := dig(variable, "value").(string); ok && dig(variable, "name") == name && value != "" {
				return value
			}
		}
	}
	return fallback
}

// serviceAddresses are the addresses under which a Service is reached from outside.
func serviceAddresses(service map[string]any) []string {
	found := texts(dig(service, "spec.externalIPs"))
	if len(found) > 0 {
		return found
	}
	entries, _ := dig(service, "status.loadBalancer.ingress").([]any)
	for _, entry := range entries {
		if ip, ok := dig(entry, "ip").(string); ok && ip != "" {
			found = append(found, ip)
		}
	}
	if dig(service, "spec.type") != "LoadBalancer" && len(found) == 0 {
		if ip, ok := dig(service, "spec.clusterIP").(string); ok && ip != "" {
			found = append(found, ip)
		}
	}
	return found
}

// attachedRoutes counts the HTTPRoutes of a listener.
func (p *platform) attachedRoutes(ctx context.Context, gateway map[string]any, listener string) int {
	routes, known := p.follow(ctx, "httproutes.gateway.networking.k8s.io")
	if !known {
		return 0
	}
	count := 0
	for _, route := range p.list(routes) {
		parents, _ := dig(route.Object, "spec.parentRefs").([]any)
		for _, parent := range parents {
			if dig(parent, "name") == dig(gateway, "metadata.name") &&
				dig(parent, "namespace", route.GetNamespace()) == dig(gateway, "metadata.namespace") &&
				(dig(parent, "sectionName") == "" || dig(parent, "sectionName") == listener) {
				count++
				break
			}
		}
	}
	return count
}

var capital = regexp.MustCompile("[A-Z]+")

// settingsIn reads a file of Longhorn's settings. The chart writes names with hyphens and leaves out what is not
// set; names as in the chart's values mean the same.
func settingsIn(text string) map[string]any {
	all, _ := parseObject(text)
	found := map[string]any{}
	for name, value := range all {
		if value != nil && value != "" {
			found[strings.ToLower(capital.ReplaceAllString(name, "-$0"))] = value
		}
	}
	return found
}
