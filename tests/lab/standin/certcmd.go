package main

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sirupsen/logrus"
	certutil "k8s.io/client-go/util/cert"
	"sigs.k8s.io/yaml"
)

// certificateServices maps K3s' services to files below the data directory, without their extension.
var certificateServices = map[string][]string{
	"admin":              {"server/tls/client-admin"},
	"api-server":         {"server/tls/client-kube-apiserver", "server/tls/serving-kube-apiserver"},
	"controller-manager": {"server/tls/client-controller", "server/tls/kube-controller-manager/kube-controller-manager"},
	"scheduler":          {"server/tls/client-scheduler", "server/tls/kube-scheduler/kube-scheduler"},
	"supervisor":         {"server/tls/client-supervisor"},
	"k3s-controller":     {"server/tls/client-k3s-controller", "agent/client-k3s-controller"},
	"k3s-server":         {"server/tls/dynamic-cert"},
	"cloud-controller":   {"server/tls/client-k3s-cloud-controller"},
	"etcd":               {"server/tls/etcd/client", "server/tls/etcd/server-client", "server/tls/etcd/peer-server-client"},
	"auth-proxy":         {"server/tls/client-auth-proxy"},
	"kubelet":            {"agent/client-kubelet", "agent/serving-kubelet"},
	"kube-proxy":         {"server/tls/client-kube-proxy", "agent/client-kube-proxy"},
}

// checkedCertificate is one row of certificate check.
type checkedCertificate struct {
	Filename, Subject, Issuer string
	Usages                    []string
	ExpiryTime                time.Time
	ResidualTime              time.Duration
	Status                    string
}

var certificateFlags = []flagSpec{{Name: "data-dir", Type: "string", Aliases: []string{"d"}},
	{Name: "service", Type: "slice", Aliases: []string{"s"}},
	{Name: "output", Type: "string", Aliases: []string{"o"}, Default: "text"},
	{Name: "path", Type: "string"}, {Name: "force", Type: "bool"},
	{Name: "config", Type: "string", Aliases: []string{"c"}}, {Name: "debug", Type: "bool"}}

// certificateCommand is k3s certificate check|rotate (k3s.md §8.2).
func certificateCommand(args []string) {
	if len(args) == 0 {
		printHelp("certificate", certificateFlags)
		return
	}
	o, err := parseFlags("certificate "+args[0], certificateFlags, args[1:])
	if err != nil {
		usageError("certificate "+args[0], certificateFlags, err)
	}
	services := o.split("service")
	for _, service := range services {
		if _, found := certificateServices[service]; !found {
			fatal(fmt.Errorf("service %s is not recognized", service))
		}
	}
	if len(services) == 0 {
		for service := range certificateServices {
			services = append(services, service)
		}
		slices.Sort(services)
	}
	p := commandPaths(o)
	switch args[0] {
	case "check":
		err = checkCertificates(p, services, o.text("output"))
	case "rotate":
		err = rotateCertificates(p, services)
	default:
		err = fmt.Errorf("the stand-in has no certificate %s", args[0])
	}
	if err != nil {
		fatal(err)
	}
}

func checkCertificates(p paths, services []string, format string) error {
	switch format {
	case "text", "table", "json", "yaml":
	default:
		return fmt.Errorf("invalid output format %s", format)
	}
	if exists(p.tls()) {
		logrus.Info("Server detected, checking agent and server certificates")
	} else {
		logrus.Info("Agent detected, checking agent certificates")
	}
	var rows []checkedCertificate
	for _, service := range services {
		logrus.Debugf("Checking certificates for %s", service)
		for _, base := range certificateServices[service] {
			certs := readCertificates(filepath.Join(p.dataDir, base))
			for i, cert := range certs {
				rows = append(rows, examine(cert, filepath.Base(base)+".crt", i > 0))
			}
		}
	}
	return printCertificates(rows, format)
}

// readCertificates reads <base>.crt, or the JSON file that the 6443 certificate lives in.
func readCertificates(base string) []*x509.Certificate {
	if certs, err := certutil.CertsFromFile(base + ".crt"); err == nil {
		return certs
	}
	var stored struct {
		Data map[string][]byte `json:"data"`
	}
	if data, err := os.ReadFile(base + ".json"); err != nil || json.Unmarshal(data, &stored) != nil {
		return nil
	}
	certs, _ := certutil.ParseCertsPEM(stored.Data["tls.crt"])
	return certs
}

func examine(cert *x509.Certificate, file string, isCA bool) checkedCertificate {
	usages := []string{}
	for _, usage := range cert.ExtKeyUsage {
		switch usage {
		case x509.ExtKeyUsageClientAuth:
			usages = append(usages, "ClientAuth")
		case x509.ExtKeyUsageServerAuth:
			usages = append(usages, "ServerAuth")
		}
	}
	if isCA {
		usages = []string{"CertSign"}
	}
	status, now := "OK", time.Now()
	switch {
	case now.Before(cert.NotBefore):
		status = "NOT YET VALID"
	case now.After(cert.NotAfter):
		status = "EXPIRED"
	case cert.NotAfter.Sub(now) < renewBefore:
		status = "WARNING"
	}
	return checkedCertificate{Filename: file, Subject: cert.Subject.CommonName, Issuer: cert.Issuer.CommonName,
		Usages: usages, ExpiryTime: cert.NotAfter, ResidualTime: cert.NotAfter.Sub(now), Status: status}
}

func printCertificates(rows []checkedCertificate, format string) error {
	switch format {
	case "json":
		data, err := json.Marshal(map[string]any{"Certificates": rows})
		fmt.Println(string(data))
		return err
	case "yaml":
		var lower []map[string]any
		for _, r := range rows {
			lower = append(lower, map[string]any{"filename": r.Filename, "subject": r.Subject, "issuer": r.Issuer,
				"usages": r.Usages, "expirytime": r.ExpiryTime, "residualtime": r.ResidualTime, "status": r.Status})
		}
		data, err := yaml.Marshal(map[string]any{"certificates": lower})
		fmt.Print(string(data))
		return err
	case "table":
		fmt.Println()
		out := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
		fmt.Fprintln(out, "FILENAME\tSUBJECT\tUSAGES\tEXPIRES\tRESIDUAL TIME\tSTATUS")
		fmt.Fprintln(out, "--------\t-------\t------\t-------\t-------------\t------")
		for _, r := range rows {
			fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Filename, r.Subject, strings.Join(r.Usages, ","),
				r.ExpiryTime.UTC().Format("Jan 02, 2006 15:04 MST"), residual(r.ResidualTime), r.Status)
		}
		return out.Flush()
	}
	for _, r := range rows {
		prefix := fmt.Sprintf("%s: certificate %s (%s)", r.Filename, r.Subject, strings.Join(r.Usages, ","))
		at := r.ExpiryTime.UTC().Format(time.RFC3339)
		switch r.Status {
		case "OK":
			logrus.Infof("%s is ok, expires at %s", prefix, at)
		case "WARNING":
			logrus.Warnf("%s will expire within 120 days at %s", prefix, at)
		case "EXPIRED":
			logrus.Errorf("%s expired at %s", prefix, at)
		default:
			logrus.Errorf("%s is not valid before", prefix)
		}
	}
	return nil
}

func residual(left time.Duration) string {
	days := int(left.Hours() / 24)
	unit := func(n int, name string) string {
		if n == 1 {
			return "1 " + name
		}
		return fmt.Sprintf("%d %ss", n, name)
	}
	if days >= 364 {
		return unit(max(1, days/365), "year")
	}
	return unit(days, "day")
}

// rotateCertificates backs the files up and deletes the services' ones; the next start issues new ones.
func rotateCertificates(p paths, services []string) error {
	role, dir := "server", p.tls()
	if !exists(p.tls()) {
		role, dir = "agent", p.agent()
	}
	backup := filepath.Join(p.dataDir, role, "tls-"+timeID())
	if err := os.CopyFS(backup, onlyCertificates(dir)); err != nil {
		return err
	}
	for _, service := range services {
		logrus.Infof("Rotating certificates for %s", service)
		for _, base := range certificateServices[service] {
			for _, extension := range []string{".crt", ".key"} {
				if err := os.Remove(filepath.Join(p.dataDir, base+extension)); err != nil && !os.IsNotExist(err) {
					return err
				}
			}
		}
	}
	if role == "server" {
		if err := os.WriteFile(p.tls("dynamic-cert-regenerate"), nil, 0600); err != nil {
			return err
		}
	}
	logrus.Infof("Successfully backed up certificates to %s, please restart k3s server or agent to rotate certificates", backup)
	return nil
}
