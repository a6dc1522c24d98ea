package controlplane

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// User is the access of a user with a client certificate. What it may do is up to RBAC.
func (c *ControlPlane) User(name string, groups ...string) (*rest.Config, error) {
	pair, err := c.authority.client(name, groups...)
	if err != nil {
		return nil, err
	}
	config := c.anonymous()
	config.CertData, config.KeyData = pair.Certificate, pair.Key
	return config, nil
}

// ServiceAccount is the access of an existing ServiceAccount, by a token as a pod would get it.
func (c *ControlPlane) ServiceAccount(ctx context.Context, namespace, name string) (*rest.Config, error) {
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		return nil, err
	}
	lifetime := int64(validity.Seconds())
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &lifetime}}
	granted, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("token of the service account %s/%s: %w", namespace, name, err)
	}
	config := c.anonymous()
	config.BearerToken = granted.Status.Token
	return config, nil
}

func (c *ControlPlane) anonymous() *rest.Config {
	return &rest.Config{
		Host:            fmt.Sprintf("https://127.0.0.1:%d", c.port.Port),
		TLSClientConfig: rest.TLSClientConfig{CAData: c.authority.PEM},
		// A test client is not throttled by itself; the server is the limit.
		QPS: -1,
	}
}

// WriteKubeconfig stores an access as a file that kubectl understands, with the namespace that it starts in.
func WriteKubeconfig(path string, config *rest.Config, namespace string) error {
	const name = "kubexen"
	return clientcmd.WriteToFile(api.Config{
		Clusters: map[string]*api.Cluster{name: {Server: config.Host, CertificateAuthorityData: config.CAData}},
		AuthInfos: map[string]*api.AuthInfo{name: {
			ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Token: config.BearerToken,
		}},
		Contexts:       map[string]*api.Context{name: {Cluster: name, AuthInfo: name, Namespace: namespace}},
		CurrentContext: name,
	}, path)
}
