package main

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/sirupsen/logrus"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// kubeconfigFor makes a kubeconfig with everything embedded, or with file names where embed is false.
func kubeconfigFor(url, caFile, certBase, name string, embed bool) (*clientcmdapi.Config, error) {
	cluster, info := clientcmdapi.NewCluster(), clientcmdapi.NewAuthInfo()
	cluster.Server = url
	cluster.CertificateAuthority = caFile
	info.ClientCertificate, info.ClientKey = certBase+".crt", certBase+".key"
	if embed {
		var err error
		for _, file := range []struct {
			path string
			into *[]byte
		}{{caFile, &cluster.CertificateAuthorityData}, {certBase + ".crt", &info.ClientCertificateData},
			{certBase + ".key", &info.ClientKeyData}} {
			if *file.into, err = os.ReadFile(file.path); err != nil {
				return nil, err
			}
		}
		cluster.CertificateAuthority, info.ClientCertificate, info.ClientKey = "", "", ""
	}
	context := clientcmdapi.NewContext()
	context.Cluster, context.AuthInfo = name, name
	config := clientcmdapi.NewConfig()
	config.Clusters[name], config.AuthInfos[name], config.Contexts[name] = cluster, info, context
	config.CurrentContext = name
	return config, nil
}

func writeKubeconfig(path string, config *clientcmdapi.Config, mode os.FileMode) error {
	data, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return writeFile(path, data, mode)
}

// writeServerKubeconfigs writes the components' files in server/cred and the administrator's k3s.yaml.
func writeServerKubeconfigs(c *serverConfig) error {
	p := c.paths
	for name, cert := range map[string]string{
		"admin": "client-admin", "supervisor": "client-supervisor", "controller": "client-controller",
		"scheduler": "client-scheduler", "api-server": "client-kube-apiserver",
		"cloud-controller": "client-k3s-cloud-controller",
	} {
		config, err := kubeconfigFor(c.localAPI(), p.tls("server-ca.crt"), p.tls(cert), "local", false)
		if err != nil {
			return err
		}
		if err := writeKubeconfig(p.cred(name+".kubeconfig"), config, 0600); err != nil {
			return err
		}
	}
	return writeAdminKubeconfig(c)
}

// writeAdminKubeconfig writes k3s.yaml, at every start and with the mode that the flags ask for.
func writeAdminKubeconfig(c *serverConfig) error {
	host := "127.0.0.1"
	if bind := c.text("bind-address"); bind != "" && bind != "0.0.0.0" {
		host = bind
	}
	config, err := kubeconfigFor(fmt.Sprintf("https://%s:%d", host, c.port), c.paths.tls("server-ca.crt"),
		c.paths.tls("client-admin"), "default", true)
	if err != nil {
		return err
	}
	mode := os.FileMode(0600)
	if bits, err := strconv.ParseUint(c.text("write-kubeconfig-mode"), 8, 32); err != nil {
		logrus.Errorf("Failed to set %s to mode %s: %v", defaultKubeconfig, c.text("write-kubeconfig-mode"), err)
	} else {
		mode = os.FileMode(bits)
	}
	path := c.text("write-kubeconfig")
	if err := os.MkdirAll(filepath.Dir(path), 0755); err != nil {
		return err
	}
	if err := writeKubeconfig(path, config, mode); err != nil {
		return err
	}
	setGroup(path, c.text("write-kubeconfig-group"))
	logrus.Infof("Wrote kubeconfig %s", path)
	if path != defaultKubeconfig {
		os.MkdirAll(filepath.Dir(defaultKubeconfig), 0755)
		return relink(path, defaultKubeconfig)
	}
	return nil
}

func setGroup(path, name string) {
	if name == "" {
		return
	}
	id, err := strconv.Atoi(name)
	if err != nil {
		group, lookupErr := user.LookupGroup(name)
		if lookupErr != nil {
			logrus.Errorf("Failed to set %s to group %s: %v", path, name, lookupErr)
			return
		}
		id, _ = strconv.Atoi(group.Gid)
	}
	if err := os.Chown(path, 0, id); err != nil {
		logrus.Errorf("Failed to set %s to group %s: %v", path, name, err)
	}
}

const defaultKubeconfig = "/etc/rancher/k3s/k3s.yaml"
