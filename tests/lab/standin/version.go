package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	_ "unsafe" // go:linkname below

	componentversion "k8s.io/component-base/version"
)

// stampMarker starts the slot that ./build overwrites with "<version> <build hash>" after linking, so
// that one link serves any number of version strings. The slot is 160 bytes long and padded with dots.
const stampMarker = "K3S-STANDIN-STAMP:"

var stamp = stampMarker + "v0.0.0-unstamped+k3s0 0000000000000000000000000000000000000000000000000000000000000000" +
	"......................................................"

//go:linkname componentGitVersion k8s.io/component-base/version.gitVersion
var componentGitVersion string

//go:linkname componentGitMajor k8s.io/component-base/version.gitMajor
var componentGitMajor string

//go:linkname componentGitMinor k8s.io/component-base/version.gitMinor
var componentGitMinor string

// version is the K3s version string that this copy answers with; buildHash names its data directory.
var version, buildHash = readStamp()

func readStamp() (string, string) {
	text := strings.TrimRight(strings.TrimPrefix(stamp, stampMarker), ".")
	fields := strings.Fields(text)
	return fields[0], fields[1]
}

// adoptVersion makes the linked Kubernetes components report the stamped version.
func adoptVersion() {
	componentGitVersion = version
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) == 3 {
		componentGitMajor, componentGitMinor = parts[0], parts[1]
	}
	if err := componentversion.SetDynamicVersion(version); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// printVersion writes the two lines of K3s and a third one that says what this program is.
func printVersion() {
	var out bytes.Buffer
	fmt.Fprintf(&out, "k3s version %s (%s)\n", version, commit())
	fmt.Fprintf(&out, "go version %s\n", runtime.Version())
	fmt.Fprintf(&out, "stand-in: test equipment of the lab, not a K3s release; pods are simulated\n")
	os.Stdout.Write(out.Bytes())
}

func commit() string { return buildHash[:8] }

// release holds the numbers of a K3s version, minor and patch, e.g. 36 and 3.
type release struct{ minor, patch int }

func parseRelease(text string) release {
	text, _, _ = strings.Cut(strings.TrimPrefix(text, "v"), "+")
	parts := strings.Split(text, ".")
	number := func(i int) int {
		if i >= len(parts) {
			return 0
		}
		n, _ := strconv.Atoi(parts[i])
		return n
	}
	return release{number(1), number(2)}
}

// releasedIn tells whether something that came with the releases in since ("1.32.4/1.31.8") is in this
// version: its own minor's patch level counts, and any minor above all listed ones has it.
func releasedIn(since string) bool {
	if since == "" {
		return true
	}
	own, newest := parseRelease(version), 0
	if own.minor == 0 {
		return true
	}
	for _, text := range strings.Split(since, "/") {
		r := parseRelease(text)
		if r.minor == own.minor {
			return own.patch >= r.patch
		}
		newest = max(newest, r.minor)
	}
	return own.minor > newest
}
