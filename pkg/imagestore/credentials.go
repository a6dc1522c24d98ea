package imagestore

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"sigs.k8s.io/yaml"
)

// Keys of the Secrets that hold what a store wants to know of us.
const (
	KeyCABundle        = "ca.crt"
	KeyAccessKeyID     = "accessKeyID"
	KeySecretAccessKey = "secretAccessKey"
	KeySessionToken    = "sessionToken"
	KeyUsername        = "username"
	KeyPassword        = "password"
	KeyToken           = "token"
	KeyCloudsYAML      = "clouds.yaml"
	KeyCloud           = "cloud"
)

// S3Credentials sign requests to an S3-compatible store; without any they are not signed.
type S3Credentials struct {
	AccessKeyID, SecretAccessKey, SessionToken string
}

// ParseS3Credentials reads the data of a Secret.
func ParseS3Credentials(data map[string][]byte) (S3Credentials, error) {
	c := S3Credentials{AccessKeyID: text(data, KeyAccessKeyID), SecretAccessKey: text(data, KeySecretAccessKey), SessionToken: text(data, KeySessionToken)}
	switch {
	case c.AccessKeyID == "" && c.SecretAccessKey == "" && c.SessionToken == "":
		return c, onlyCABundle(data, KeyAccessKeyID+" and "+KeySecretAccessKey)
	case c.AccessKeyID == "":
		return c, missing(KeyAccessKeyID, data)
	case c.SecretAccessKey == "":
		return c, missing(KeySecretAccessKey, data)
	}

	return c, nil
}

// HTTPCredentials are sent to a web server, Basic or Bearer; without any nothing is sent.
type HTTPCredentials struct {
	Username, Password, Token string
}

// ParseHTTPCredentials reads the data of a Secret.
func ParseHTTPCredentials(data map[string][]byte) (HTTPCredentials, error) {
	c := HTTPCredentials{Username: text(data, KeyUsername), Password: text(data, KeyPassword), Token: text(data, KeyToken)}
	switch {
	case c.Token != "" && (c.Username != "" || c.Password != ""):
		return c, fmt.Errorf("the Secret has both %s and %s or %s: it must be one way", KeyToken, KeyUsername, KeyPassword)
	case c.Token != "":
		return c, nil
	case c.Username == "" && c.Password == "":
		return c, onlyCABundle(data, KeyUsername+" and "+KeyPassword+", or "+KeyToken)
	case c.Username == "":
		return c, missing(KeyUsername, data)
	case c.Password == "":
		return c, missing(KeyPassword, data)
	}

	return c, nil
}

// Cloud is how an OpenStack cloud knows us.
type Cloud struct {
	Auth     gophercloud.AuthOptions
	Endpoint gophercloud.EndpointOpts
}

// cloudEntry is what of an entry of a clouds.yaml is understood; field names are those of OpenStack's own clients.
type cloudEntry struct {
	Auth         *authInfo `json:"auth"`
	RegionName   string    `json:"region_name"`
	Interface    string    `json:"interface"`
	EndpointType string    `json:"endpoint_type"`
	Verify       *bool     `json:"verify"`
	Profile      string    `json:"profile"`
	CACert       string    `json:"cacert"`
	Cert         string    `json:"cert"`
	Key          string    `json:"key"`
}

type authInfo struct {
	AuthURL                     string `json:"auth_url"`
	Username                    string `json:"username"`
	UserID                      string `json:"user_id"`
	Password                    string `json:"password"`
	ApplicationCredentialID     string `json:"application_credential_id"`
	ApplicationCredentialName   string `json:"application_credential_name"`
	ApplicationCredentialSecret string `json:"application_credential_secret"`
	ProjectID                   string `json:"project_id"`
	ProjectName                 string `json:"project_name"`
	ProjectDomainID             string `json:"project_domain_id"`
	ProjectDomainName           string `json:"project_domain_name"`
	UserDomainID                string `json:"user_domain_id"`
	UserDomainName              string `json:"user_domain_name"`
	DomainID                    string `json:"domain_id"`
	DomainName                  string `json:"domain_name"`
}

// ParseCloud reads the data of a Secret with a clouds.yaml. Whoever writes it may be a tenant: it may not name files
// of ours, and nothing of our environment goes into it.
func ParseCloud(data map[string][]byte) (*Cloud, error) {
	if text(data, KeyCloudsYAML) == "" {
		return nil, missing(KeyCloudsYAML, data)
	}
	var file struct {
		Clouds map[string]cloudEntry `json:"clouds"`
	}
	if err := yaml.Unmarshal(data[KeyCloudsYAML], &file); err != nil {
		return nil, fmt.Errorf("%s is no YAML of clouds", KeyCloudsYAML) // the parser's words may quote a password
	}
	cloud, err := pick(file.Clouds, text(data, KeyCloud))
	if err != nil {
		return nil, err
	}
	for field, value := range map[string]string{"cacert": cloud.CACert, "cert": cloud.Cert, "key": cloud.Key, "profile": cloud.Profile} {
		if value != "" {
			return nil, fmt.Errorf("%s of the cloud in %s names a file of another machine; put certificates into the key %s", field, KeyCloudsYAML, KeyCABundle)
		}
	}
	if cloud.Verify != nil && !*cloud.Verify {
		return nil, fmt.Errorf("verify: false in %s is not taken; put the authority's certificate into the key %s", KeyCloudsYAML, KeyCABundle)
	}
	if cloud.Auth == nil || cloud.Auth.AuthURL == "" {
		return nil, fmt.Errorf("the cloud in %s has no auth.auth_url", KeyCloudsYAML)
	}
	auth, err := authOptions(cloud.Auth)
	if err != nil {
		return nil, err
	}
	availability := gophercloud.AvailabilityPublic
	if kind := cloud.Interface + cloud.EndpointType; kind != "" {
		availability = gophercloud.Availability(strings.TrimSuffix(kind, "URL"))
	}

	return &Cloud{Auth: auth, Endpoint: gophercloud.EndpointOpts{Region: cloud.RegionName, Availability: availability}}, nil
}

func pick(all map[string]cloudEntry, name string) (cloudEntry, error) {
	names := slices.Sorted(maps.Keys(all))
	switch {
	case len(all) == 0:
		return cloudEntry{}, fmt.Errorf("%s has no cloud under clouds", KeyCloudsYAML)
	case name == "" && len(all) == 1:
		return all[names[0]], nil
	case name == "":
		return cloudEntry{}, fmt.Errorf("%s has several clouds (%s); name one in the key %s", KeyCloudsYAML, strings.Join(names, ", "), KeyCloud)
	}
	cloud, there := all[name]
	if !there {
		return cloud, fmt.Errorf("%s has no cloud %q; it has %s", KeyCloudsYAML, name, strings.Join(names, ", "))
	}

	return cloud, nil
}

// authOptions takes a password or an application credential. Tokens are not taken: they are over before a retry.
func authOptions(info *authInfo) (gophercloud.AuthOptions, error) {
	options := gophercloud.AuthOptions{IdentityEndpoint: info.AuthURL, AllowReauth: true}
	switch {
	case info.ApplicationCredentialSecret != "":
		options.ApplicationCredentialID = info.ApplicationCredentialID
		options.ApplicationCredentialName = info.ApplicationCredentialName
		options.ApplicationCredentialSecret = info.ApplicationCredentialSecret
		if options.ApplicationCredentialID != "" {
			return options, nil
		}
		options.Username, options.UserID = info.Username, info.UserID
		options.DomainID, options.DomainName = first(info.UserDomainID, info.DomainID), first(info.UserDomainName, info.DomainName)
		if options.ApplicationCredentialName == "" || first(info.Username, info.UserID) == "" {
			return options, errors.New("an application credential needs application_credential_id, or application_credential_name with the user's name or id")
		}
	case info.Password != "":
		options.Username, options.UserID, options.Password = info.Username, info.UserID, info.Password
		options.DomainID, options.DomainName = first(info.UserDomainID, info.DomainID), first(info.UserDomainName, info.DomainName)
		if first(info.Username, info.UserID) == "" {
			return options, errors.New("auth has a password but neither username nor user_id")
		}
		options.Scope = scopeOf(info)
		if options.Scope == nil {
			return options, errors.New("auth names no project: project_id, or project_name with its domain")
		}
	default:
		return options, errors.New("auth has neither a password nor an application_credential_secret")
	}
	if options.UserID != "" || options.DomainID != "" {
		options.DomainName = ""
	}
	if options.UserID != "" {
		options.Username, options.DomainID = "", ""
	}

	return options, nil
}

func scopeOf(info *authInfo) *gophercloud.AuthScope {
	switch {
	case info.ProjectID != "":
		return &gophercloud.AuthScope{ProjectID: info.ProjectID}
	case info.ProjectName != "":
		scope := &gophercloud.AuthScope{ProjectName: info.ProjectName, DomainID: first(info.ProjectDomainID, info.DomainID)}
		if scope.DomainID == "" {
			scope.DomainName = first(info.ProjectDomainName, info.DomainName)
		}
		return scope
	default:
		return nil
	}
}

func first(values ...string) string {
	for _, value := range values {
		if value != "" {
			return value
		}
	}

	return ""
}

// text is a value as people write Secrets: a line break at the end is none of it.
func text(data map[string][]byte, key string) string {
	return strings.TrimRight(string(data[key]), "\r\n")
}

// onlyCABundle takes a Secret without credentials if it has a certificate, and refuses one that has neither.
func onlyCABundle(data map[string][]byte, wanted string) error {
	if len(data) == 0 || text(data, KeyCABundle) != "" {
		return nil
	}

	return missing(wanted, data)
}

func missing(wanted string, data map[string][]byte) error {
	if len(data) == 0 {
		return fmt.Errorf("the Secret has no %s: it is empty", wanted)
	}

	return fmt.Errorf("the Secret has no %s; it has %s", wanted, strings.Join(slices.Sorted(maps.Keys(data)), ", "))
}
