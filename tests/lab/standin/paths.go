package main

import (
	"os"
	"path/filepath"
)

// paths gives the places below a data directory (k3s.md §6.2).
type paths struct{ dataDir string }

func (p paths) server(parts ...string) string {
	return filepath.Join(append([]string{p.dataDir, "server"}, parts...)...)
}
func (p paths) tls(parts ...string) string  { return p.server(append([]string{"tls"}, parts...)...) }
func (p paths) cred(parts ...string) string { return p.server(append([]string{"cred"}, parts...)...) }
func (p paths) db(parts ...string) string   { return p.server(append([]string{"db"}, parts...)...) }
func (p paths) agent(parts ...string) string {
	return filepath.Join(append([]string{p.dataDir, "agent"}, parts...)...)
}
func (p paths) data(parts ...string) string {
	return filepath.Join(append([]string{p.dataDir, "data"}, parts...)...)
}

// bin is the directory of the unpacked programs of this version.
func (p paths) bin(parts ...string) string {
	return p.data(append([]string{buildHash, "bin"}, parts...)...)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// writeFile writes through a temporary file in the same directory, so that readers see all or nothing.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0700); err != nil {
		return err
	}
	temporary := path + ".tmp"
	if err := os.WriteFile(temporary, data, mode); err != nil {
		return err
	}
	if err := os.Chmod(temporary, mode); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// relink points a symlink somewhere else, atomically.
func relink(target, link string) error {
	temporary := link + ".tmp"
	os.Remove(temporary)
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	return os.Rename(temporary, link)
}
