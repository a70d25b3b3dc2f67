package main

import (
	"context"
	"crypto/x509"
	"net/netip"
	"testing"
	"time"
)

// The table must load: every template parses and every row names a known operator.
func TestPlatformTableLoads(t *testing.T) {
	table, err := loadPlatformTable()
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, row := range table.Objects {
		if ids[row.ID] {
			t.Errorf("row %s stands twice", row.ID)
		}
		ids[row.ID] = true
	}
	if got := len(table.Definitions[0].Names); got != 20 {
		t.Errorf("cilium registers %d definitions, want 20", got)
	}
}

// A condition keeps its time while its status stays, and conditions of others stay.
func TestSettleKeepsTimes(t *testing.T) {
	current, _ := parseObject(`{startedAt: "2020-01-01T00:00:00Z", conditions: [
		{type: Ready, status: "True", lastTransitionTime: "2020-01-01T00:00:00Z"}, {type: Other, status: "True"}]}`)
	wanted, _ := parseObject(`{startedAt: NOW, conditions: [{type: Ready, status: "True", lastTransitionTime: NOW}]}`)
	settle(current, wanted, time.Now())
	if !holds(current, wanted) {
		t.Errorf("an unchanged status became %v", wanted)
	}
	changed, _ := parseObject(`{conditions: [{type: Ready, status: "False", lastTransitionTime: NOW}]}`)
	settle(current, changed, time.Unix(0, 0))
	if got := dig(changed["conditions"].([]any)[0], "lastTransitionTime"); got != "1970-01-01T00:00:00Z" {
		t.Errorf("a new status keeps the time %v", got)
	}
}

func TestParseRanges(t *testing.T) {
	ranges := parseRanges([]string{"192.0.2.8/30", "198.51.100.5-198.51.100.7", "nonsense"})
	if len(ranges) != 2 || ranges[0].last != netip.MustParseAddr("192.0.2.11") ||
		ranges[1].first != netip.MustParseAddr("198.51.100.5") {
		t.Errorf("got %v", ranges)
	}
}

// What a mutating webhook adds never replaces what is there.
func TestAbsentAddsOnlyWhatIsMissing(t *testing.T) {
	steps := absent("", map[string]any{"spec": map[string]any{"a": 1}},
		map[string]any{"spec": map[string]any{"a": 2, "b/c": 3}})
	if len(steps) != 1 || steps[0].Path != "/spec/b~1c" || steps[0].Op != "add" {
		t.Errorf("got %v", steps)
	}
}

func TestMadePairIsTrustedByItsCA(t *testing.T) {
	ca, chain, private, err := makePair([]string{"web.default.svc"})
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := parsePair(chain, private)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "web.default.svc"}); err != nil {
		t.Error(err)
	}
}

// Templates of rows that need no cluster give valid YAML for an object without optional fields.
func TestRowsRenderSmallObjects(t *testing.T) {
	table, err := loadPlatformTable()
	if err != nil {
		t.Fatal(err)
	}
	p := &platform{}
	object, _ := parseObject(`{metadata: {name: x, namespace: y, generation: 1, uid: u}, spec: {version: "9.0.0"}}`)
	for i := range table.Objects {
		row := &table.Objects[i]
		switch row.ID {
		case "prometheus", "alertmanager", "cnpg-cluster", "eck-elasticsearch":
		default:
			continue
		}
		text, err := p.render(context.Background(), row, row.Make, view{O: object, Name: "x", Namespace: "y"})
		if err != nil {
			t.Errorf("%s: %v", row.ID, err)
		}
		if _, err := parseManifest([]byte(text)); err != nil {
			t.Errorf("%s: %v\n%s", row.ID, err, text)
		}
	}
}

func TestLonghornSettingsByEitherName(t *testing.T) {
	got := settingsIn("defaultReplicaCount: 2\ndefault-data-path: /data\nbackupTarget: null\n")
	if len(got) != 2 || toInt(got["default-replica-count"]) != 2 || got["default-data-path"] != "/data" {
		t.Errorf("got %v", got)
	}
}
