package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// registerCRDs registers the custom resource definitions that operators bring along at run time.
func (p *platform) registerCRDs(ctx context.Context) error {
	for _, row := range p.table.Definitions {
		if !p.operates(row.Operator) {
			continue
		}
		definitions, err := p.definitionsOf(row)
		if err != nil {
			return err
		}
		for _, definition := range definitions {
			if p.known(ctx, crdResource, "", definition.GetName()) != nil {
				continue
			}
			if err := p.apply(ctx, row.Operator, definition.DeepCopy(), false); err != nil {
				return err
			}
		}
	}
	return nil
}

// definitionsOf reads the lab's file of a row, or makes permissive definitions; once.
func (p *platform) definitionsOf(row definitionRow) ([]*unstructured.Unstructured, error) {
	if known, found := p.definitions[row.File]; found {
		return known, nil
	}
	wanted := map[string]bool{}
	var permissive []*unstructured.Unstructured
	for _, text := range row.Names {
		definition, err := permissiveDefinition(row.Group, text)
		if err != nil {
			return nil, err
		}
		wanted[definition.GetName()] = true
		permissive = append(permissive, definition)
	}
	p.definitions[row.File] = permissive
	for _, folder := range standinFolders(p.s.c.paths) {
		data, err := os.ReadFile(filepath.Join(folder, "crds", row.File))
		if err != nil {
			continue
		}
		all, err := parseManifest(bytes.TrimSpace(data))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", row.File, err)
		}
		var real []*unstructured.Unstructured
		for _, definition := range all {
			if wanted[definition.GetName()] {
				real = append(real, definition)
			}
		}
		p.definitions[row.File] = real
		break
	}
	return p.definitions[row.File], nil
}

// permissiveDefinition makes a definition that takes every spec and status.
func permissiveDefinition(group, text string) (*unstructured.Unstructured, error) {
	words := strings.Fields(text)
	if len(words) < 4 {
		return nil, fmt.Errorf("platform.yaml: definition %q: expected plural, kind, scope and versions", text)
	}
	plural, kind, scope := words[0], words[1], words[2]
	open := map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
	var versions []any
	for i, version := range words[3:] {
		versions = append(versions, map[string]any{"name": version, "served": true, "storage": i == 0,
			"subresources": map[string]any{"status": map[string]any{}},
			"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object",
				"properties": map[string]any{"spec": open, "status": open}}}})
	}
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apiextensions.k8s.io/v1",
		"kind": "CustomResourceDefinition", "metadata": map[string]any{"name": plural + "." + group},
		"spec": map[string]any{"group": group, "scope": scope, "versions": versions,
			"names": map[string]any{"plural": plural, "singular": strings.ToLower(kind), "kind": kind,
				"listKind": kind + "List"}}}}, nil
}
