//go:build tools

// Package kwok pins the node simulator that the build packs into the stand-in.
package kwok

import _ "sigs.k8s.io/kwok/cmd/kwok"
