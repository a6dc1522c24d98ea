package imagestore

import (
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
)

func secret(pairs ...string) map[string][]byte {
	data := map[string][]byte{}
	for i := 0; i < len(pairs); i += 2 {
		data[pairs[i]] = []byte(pairs[i+1])
	}

	return data
}

// wantWords holds an error against words that it must hold; no words mean no error. It never shows a secret.
func wantWords(t *testing.T, err error, words string) {
	t.Helper()
	switch {
	case words == "" && err != nil:
		t.Errorf("got %v", err)
	case words != "" && (err == nil || !strings.Contains(err.Error(), words)):
		t.Errorf("got %v, want %q in it", err, words)
	case err != nil && strings.Contains(err.Error(), "hunter2"):
		t.Errorf("the error shows a secret: %v", err)
	}
}

func TestS3Credentials(t *testing.T) {
	for name, c := range map[string]struct {
		data  map[string][]byte
		want  S3Credentials
		words string
	}{
		"none":                    {nil, S3Credentials{}, ""},
		"certificate alone":       {secret("ca.crt", "PEM"), S3Credentials{}, ""},
		"both, with a line's end": {secret("accessKeyID", "a\n", "secretAccessKey", "hunter2\r\n"), S3Credentials{AccessKeyID: "a", SecretAccessKey: "hunter2"}, ""},
		"with a session":          {secret("accessKeyID", "a", "secretAccessKey", "b", "sessionToken", "c"), S3Credentials{"a", "b", "c"}, ""},
		"no secret key":           {secret("accessKeyID", "a"), S3Credentials{AccessKeyID: "a"}, "no secretAccessKey; it has accessKeyID"},
		"no key id":               {secret("secretAccessKey", "hunter2"), S3Credentials{SecretAccessKey: "hunter2"}, "no accessKeyID; it has secretAccessKey"},
		"other people's keys":     {secret("AWS_SECRET", "hunter2"), S3Credentials{}, "no accessKeyID and secretAccessKey; it has AWS_SECRET"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseS3Credentials(c.data)
			wantWords(t, err, c.words)
			if got != c.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestHTTPCredentials(t *testing.T) {
	for name, c := range map[string]struct {
		data  map[string][]byte
		want  HTTPCredentials
		words string
	}{
		"none":        {nil, HTTPCredentials{}, ""},
		"basic":       {secret("username", "a", "password", "b"), HTTPCredentials{Username: "a", Password: "b"}, ""},
		"bearer":      {secret("token", "c"), HTTPCredentials{Token: "c"}, ""},
		"both":        {secret("token", "c", "username", "a"), HTTPCredentials{Username: "a", Token: "c"}, "it must be one way"},
		"no password": {secret("username", "a"), HTTPCredentials{Username: "a"}, "no password; it has username"},
		"no user":     {secret("password", "hunter2"), HTTPCredentials{Password: "hunter2"}, "no username; it has password"},
		"empty":       {map[string][]byte{"x": nil}, HTTPCredentials{}, "no username and password, or token; it has x"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseHTTPCredentials(c.data)
			wantWords(t, err, c.words)
			if got != c.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestClouds(t *testing.T) {
	password := "auth: {auth_url: 'https://id/v3', username: u, password: hunter2, project_name: p, user_domain_name: D, project_domain_name: E}"
	for name, c := range map[string]struct {
		clouds, cloud string
		want          gophercloud.AuthOptions
		words         string
	}{
		"password": {
			clouds: "a: {" + password + ", region_name: r, interface: internal}",
			want: gophercloud.AuthOptions{
				IdentityEndpoint: "https://id/v3", Username: "u", Password: "hunter2", DomainName: "D", AllowReauth: true,
				Scope: &gophercloud.AuthScope{ProjectName: "p", DomainName: "E"},
			},
		},
		"password, by ids": {
			clouds: "a: {auth: {auth_url: x, user_id: i, username: u, user_domain_name: D, password: hunter2, project_id: q}}",
			want:   gophercloud.AuthOptions{IdentityEndpoint: "x", UserID: "i", Password: "hunter2", AllowReauth: true, Scope: &gophercloud.AuthScope{ProjectID: "q"}},
		},
		"application credential": {
			clouds: "a: {auth_type: v3applicationcredential, auth: {auth_url: x, application_credential_id: i, application_credential_secret: hunter2}}",
			want:   gophercloud.AuthOptions{IdentityEndpoint: "x", ApplicationCredentialID: "i", ApplicationCredentialSecret: "hunter2", AllowReauth: true},
		},
		"application credential by name": {
			clouds: "a: {auth: {auth_url: x, application_credential_name: mine, application_credential_secret: hunter2, username: u, user_domain_id: default}}",
			want: gophercloud.AuthOptions{
				IdentityEndpoint: "x", ApplicationCredentialName: "mine", ApplicationCredentialSecret: "hunter2", Username: "u", DomainID: "default", AllowReauth: true,
			},
		},
		"application credential without a user": {
			clouds: "a: {auth: {auth_url: x, application_credential_name: mine, application_credential_secret: hunter2}}", words: "application_credential_id",
		},
		"one of several":     {clouds: "{a: {}, b: {" + password + "}}", cloud: "c", words: `no cloud "c"; it has a, b`},
		"none of several":    {clouds: "{a: {}, b: {}}", words: "several clouds (a, b)"},
		"no clouds":          {clouds: "{}", words: "no cloud under clouds"},
		"no YAML":            {clouds: "[hunter2", words: "no YAML"},
		"no auth":            {clouds: "a: {}", words: "auth_url"},
		"no credentials":     {clouds: "a: {auth: {auth_url: x, username: u}}", words: "neither a password"},
		"no user":            {clouds: "a: {auth: {auth_url: x, password: hunter2, project_id: p}}", words: "neither username"},
		"no project":         {clouds: "a: {auth: {auth_url: x, username: u, password: hunter2}}", words: "no project"},
		"a file of ours":     {clouds: "a: {cacert: /etc/passwd, " + password + "}", words: "cacert"},
		"a client's key":     {clouds: "a: {key: /var/run/secrets/token, " + password + "}", words: "key"},
		"a profile":          {clouds: "a: {profile: x, " + password + "}", words: "profile"},
		"trusting everybody": {clouds: "a: {verify: false, " + password + "}", words: "verify: false"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseCloud(secret("clouds.yaml", "clouds: "+indented(c.clouds), "cloud", c.cloud))
			wantWords(t, err, c.words)
			if err != nil {
				return
			}
			if scope := got.Auth.Scope; (scope == nil) != (c.want.Scope == nil) || scope != nil && *scope != *c.want.Scope {
				t.Errorf("the scope is %+v", scope)
			}
			got.Auth.Scope, c.want.Scope = nil, nil
			if got.Auth != c.want {
				t.Errorf("got %+v", got.Auth)
			}
		})
	}
	_, err := ParseCloud(nil)
	wantWords(t, err, "no clouds.yaml: it is empty")
}

// indented makes an entry of a map, unless it is one in itself.
func indented(clouds string) string {
	if strings.HasPrefix(clouds, "{") || strings.HasPrefix(clouds, "[") {
		return clouds
	}

	return "\n  " + clouds
}

func TestPartSizes(t *testing.T) {
	const gibibyte = 1 << 30
	for name, c := range map[string]struct {
		object   int64
		number   int
		size     int64
		streamed bool
	}{
		"short":                     {1, 1, 16 * mebibyte, false},
		"50 GiB":                    {50 * gibibyte, 1, 16 * mebibyte, false},
		"200 GiB":                   {200 * gibibyte, 9, 24 * mebibyte, false},
		"450 GiB":                   {450 * gibibyte, 9, 48 * mebibyte, false},
		"2040 GiB":                  {2040 * gibibyte, 9, 209 * mebibyte, true},
		"unknown, at the beginning": {-1, 1, 16 * mebibyte, false},
		"unknown, further on":       {-1, 2001, 24 * mebibyte, false},
		"unknown, far on":           {-1, 10_000, 48 * mebibyte, false},
	} {
		t.Run(name, func(t *testing.T) {
			size := defaultParting.size(c.object, c.number)
			if size != c.size || (size > defaultParting.streamAbove) != c.streamed || c.object > size*maxParts {
				t.Errorf("parts of %d bytes", size)
			}
		})
	}
}

// TestAnObjectWithoutEnd: what is larger than a bucket takes in parts is said as such, not as a matter of credentials.
func TestAnObjectWithoutEnd(t *testing.T) {
	w := &s3Writer{store: &S3{parting: defaultParting}, upload: Upload{Size: -1}, number: maxParts + 1}
	if _, err := w.collect([]byte{1}); KindOf(err) != TooLarge {
		t.Errorf("error %v is of kind %s", err, KindOf(err))
	}
}
