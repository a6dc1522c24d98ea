package stores

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// python is the interpreter of Debian's packages, whatever else is in the PATH.
const python = "/usr/bin/python3"

// OpenStack is an image service, and with NewOpenStack an identity service before it.
type OpenStack struct {
	// URL of the image service, without /v2.
	URL string
	// IdentityURL is that of the identity service with /v3; empty with NewGlance.
	IdentityURL string
	// Password of the user admin of the project admin, both in the domain Default.
	Password string

	token string
}

// NewGlance starts an image service that asks nobody who they are.
func NewGlance(t testing.TB) *OpenStack {
	t.Helper()
	o := &OpenStack{}
	o.startGlance(t, glancePipeline, "")

	return o
}

// NewOpenStack starts an identity service, and an image service that asks it.
func NewOpenStack(t testing.TB) *OpenStack {
	t.Helper()
	o := &OpenStack{Password: "the-admins-password"}
	glance := freeAddress(t)
	o.startKeystone(t, "http://"+glance)
	o.startGlanceAt(t, glance, glanceKeystonePipeline, fmt.Sprintf(`
[keystone_authtoken]
www_authenticate_uri = %[1]s
auth_url = %[1]s
auth_type = password
username = admin
password = %[2]s
project_name = admin
user_domain_id = default
project_domain_id = default
memcached_servers =
`, o.IdentityURL, o.Password))
	o.token = o.newToken(t)

	return o
}

// Debian's own pipelines, with nothing in them but who is asking.
const (
	glancePipeline = `
[composite:glance-api]
paste.composite_factory = glance.api:root_app_factory
/: versions
/v2: v2
[pipeline:versions]
pipeline = versionnegotiation versionsapp
[pipeline:v2]
pipeline = context v2app
[app:versionsapp]
paste.app_factory = glance.api.versions:create_resource
[app:v2app]
paste.app_factory = glance.api.v2.router:API.factory
[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:context]
paste.filter_factory = glance.api.middleware.context:UnauthenticatedContextMiddleware.factory
`
	glanceKeystonePipeline = `
[composite:glance-api]
paste.composite_factory = glance.api:root_app_factory
/: versions
/v2: v2
[pipeline:versions]
pipeline = versionnegotiation versionsapp
[pipeline:v2]
pipeline = authtoken context v2app
[app:versionsapp]
paste.app_factory = glance.api.versions:create_resource
[app:v2app]
paste.app_factory = glance.api.v2.router:API.factory
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
`
)

func (o *OpenStack) startGlance(t testing.TB, pipeline, more string) {
	t.Helper()
	o.startGlanceAt(t, freeAddress(t), pipeline, more)
}

// startGlanceAt runs Debian's Glance from a directory of its own: its database, its images and its configuration are
// there, and nothing of the machine's is read.
func (o *OpenStack) startGlanceAt(t testing.TB, address, pipeline, more string) {
	t.Helper()
	directory := t.TempDir()
	host, port, _ := strings.Cut(address, ":")
	write(t, filepath.Join(directory, "paste.ini"), pipeline)
	write(t, filepath.Join(directory, "policy.yaml"), "{}\n")
	configuration := filepath.Join(directory, "glance.conf")
	write(t, configuration, fmt.Sprintf(`
[DEFAULT]
bind_host = %[2]s
bind_port = %[3]s
workers = 0
use_stderr = true
enabled_backends = files:file
node_staging_uri = file://%[1]s/staging
[database]
connection = %[5]s
[glance_store]
default_backend = files
[files]
filesystem_store_datadir = %[1]s/images
[os_glance_staging_store]
filesystem_store_datadir = %[1]s/staging
[os_glance_tasks_store]
filesystem_store_datadir = %[1]s/tasks
[paste_deploy]
config_file = %[1]s/paste.ini
[oslo_policy]
policy_file = %[1]s/policy.yaml
policy_dirs = %[1]s/policy.d
[oslo_concurrency]
lock_path = %[1]s
%[4]s`, directory, host, port, more, connectionTo(filepath.Join(directory, "glance.sqlite"))))
	for _, name := range []string{"images", "staging", "tasks"} {
		if err := os.Mkdir(filepath.Join(directory, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	database(t, filepath.Join(directory, "glance.sqlite"), "python3-glance", "from glance.cmd.manage import main; main()", configuration)
	o.URL = "http://" + address
	command := pythonCommand(context.WithoutCancel(t.Context()), directory, "from glance.cmd.api import main; main()", "--config-file", configuration)
	serve(t, "glance-api", filepath.Join(directory, "glance.log"), o.URL, http.DefaultClient, command)
}

// startKeystone runs Debian's Keystone from a directory of its own, with a user, a project and a catalog.
func (o *OpenStack) startKeystone(t testing.TB, imageURL string) {
	t.Helper()
	directory, address := t.TempDir(), freeAddress(t)
	host, port, _ := strings.Cut(address, ":")
	configuration := filepath.Join(directory, "keystone.conf")
	write(t, filepath.Join(directory, "policy.yaml"), "{}\n")
	write(t, configuration, fmt.Sprintf(`
[DEFAULT]
use_stderr = true
[database]
connection = %[2]s
[fernet_tokens]
key_repository = %[1]s/fernet-keys
[credential]
key_repository = %[1]s/credential-keys
[fernet_receipts]
key_repository = %[1]s/fernet-keys
[cache]
enabled = false
[oslo_policy]
policy_file = %[1]s/policy.yaml
policy_dirs = %[1]s/policy.d
`, directory, connectionTo(filepath.Join(directory, "keystone.sqlite"))))
	o.IdentityURL = "http://" + address + "/v3"
	keys(t, filepath.Join(directory, "fernet-keys"))
	keys(t, filepath.Join(directory, "credential-keys"))
	const manage = "from keystone.cmd.manage import main; main()"
	database(t, filepath.Join(directory, "keystone.sqlite"), "python3-keystone", manage, configuration)
	runPython(t, directory, "python3-keystone", manage, "--config-file", configuration, "bootstrap",
		"--bootstrap-password", o.Password, "--bootstrap-region-id", "here",
		"--bootstrap-admin-url", o.IdentityURL, "--bootstrap-internal-url", o.IdentityURL, "--bootstrap-public-url", o.IdentityURL)
	command := pythonCommand(context.WithoutCancel(t.Context()), directory, fmt.Sprintf(`
from keystone.server import wsgi
from werkzeug.serving import run_simple
sys.argv = ["keystone"]
run_simple(%q, %s, wsgi.initialize_public_application(), threaded=True)`, host, port))
	command.Env = append(command.Env, "OS_KEYSTONE_CONFIG_DIR="+directory, "OS_KEYSTONE_CONFIG_FILES=keystone.conf")
	serve(t, "keystone", filepath.Join(directory, "keystone.log"), o.IdentityURL, http.DefaultClient, command)
	o.token = o.newToken(t)
	o.describeImageService(t, imageURL)
}

// keys makes a repository of Fernet keys: 0 is the next one, 1 the one in use.
func keys(t testing.TB, directory string) {
	t.Helper()
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"0", "1"} {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // it never fails
		write(t, filepath.Join(directory, name), base64.URLEncoding.EncodeToString(key))
	}
}

// connectionTo is how a service opens its database. Its threads leave connections to each other, which the driver else refuses to
// close: they would keep the database locked.
func connectionTo(path string) string {
	return "sqlite:///" + path + "?check_same_thread=false&timeout=30"
}

// database makes the database of a service. Its hundred migrations take long, so what a version of a package makes is
// kept in the user's cache.
func database(t testing.TB, path, debianPackage, code, configuration string) {
	t.Helper()
	version, err := exec.CommandContext(t.Context(), "dpkg-query", "-W", "-f", "${Version}", debianPackage).Output()
	if err != nil || len(version) == 0 {
		t.Fatalf("this test needs Debian's %s; hack/install.sh installs it: %v", debianPackage, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(cache, "kubexen", debianPackage+"-"+strings.NewReplacer(":", "_", "/", "_").Replace(string(version))+".sqlite")
	if empty, err := os.ReadFile(kept); err == nil {
		write(t, path, string(empty))
		return
	}
	runPython(t, filepath.Dir(path), debianPackage, code, "--config-file", configuration, "db_sync")
	empty, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		t.Fatal(err)
	}
	partial := fmt.Sprintf("%s.%d", kept, os.Getpid())
	write(t, partial, string(empty))
	if err := os.Rename(partial, kept); err != nil {
		t.Fatal(err)
	}
}

func pythonCommand(ctx context.Context, directory, code string, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, python, append([]string{"-c", "import sys; sys.argv[0] = 'test'\n" + code}, arguments...)...)
	command.Dir = directory
	command.Env = append(os.Environ(), "PYTHONWARNINGS=ignore", "HOME="+directory)

	return command
}

// runPython runs a program of Debian's to its end.
func runPython(t testing.TB, directory, debianPackage, code string, arguments ...string) {
	t.Helper()
	output, err := pythonCommand(t.Context(), directory, code, arguments...).CombinedOutput()
	if err == nil {
		return
	}
	if bytes.Contains(output, []byte("ModuleNotFoundError")) || os.IsNotExist(err) {
		t.Fatalf("this test needs Debian's %s; hack/install.sh installs it: %v\n%s", debianPackage, err, tail(output))
	}
	t.Fatalf("%s: %v\n%s", strings.Join(arguments, " "), err, tail(output))
}

// newToken logs in as the admin, without the client that is tested.
func (o *OpenStack) newToken(t testing.TB) string {
	t.Helper()
	domain := map[string]any{"id": "default"}
	header, _ := o.ask(t, http.MethodPost, o.IdentityURL+"/auth/tokens", map[string]any{"auth": map[string]any{
		"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{
			"user": map[string]any{"name": "admin", "domain": domain, "password": o.Password},
		}},
		"scope": map[string]any{"project": map[string]any{"name": "admin", "domain": domain}},
	}}, nil)

	return header.Get("X-Subject-Token")
}

func (o *OpenStack) describeImageService(t testing.TB, imageURL string) {
	t.Helper()
	var made struct {
		Service struct {
			ID string `json:"id"`
		} `json:"service"`
	}
	o.ask(t, http.MethodPost, o.IdentityURL+"/services", map[string]any{"service": map[string]any{"type": "image", "name": "glance"}}, &made)
	o.ask(t, http.MethodPost, o.IdentityURL+"/endpoints", map[string]any{"endpoint": map[string]any{
		"interface": "public", "region_id": "here", "service_id": made.Service.ID, "url": imageURL,
	}}, nil)
}

// CloudsYAML is a clouds.yaml with the admin's password.
func (o *OpenStack) CloudsYAML() string {
	return fmt.Sprintf(`clouds:
  test:
    auth: {auth_url: %q, username: admin, password: %q, project_name: admin, user_domain_name: Default, project_domain_name: Default}
    region_name: here
`, o.IdentityURL, o.Password)
}

// ApplicationCredentialYAML is a clouds.yaml with a new application credential.
func (o *OpenStack) ApplicationCredentialYAML(t testing.TB) string {
	t.Helper()
	var self struct {
		Token struct {
			User struct {
				ID string `json:"id"`
			} `json:"user"`
		} `json:"token"`
	}
	o.ask(t, http.MethodGet, o.IdentityURL+"/auth/tokens", nil, &self)
	var made struct {
		Credential struct {
			ID     string `json:"id"`
			Secret string `json:"secret"`
		} `json:"application_credential"`
	}
	o.ask(t, http.MethodPost, o.IdentityURL+"/users/"+self.Token.User.ID+"/application_credentials",
		map[string]any{"application_credential": map[string]any{"name": "kubexen"}}, &made)

	return fmt.Sprintf(`clouds:
  test:
    auth_type: v3applicationcredential
    auth: {auth_url: %q, application_credential_id: %s, application_credential_secret: %s}
    region_name: here
`, o.IdentityURL, made.Credential.ID, made.Credential.Secret)
}

// Images are what the service knows, as it tells them.
func (o *OpenStack) Images(t testing.TB) []map[string]any {
	t.Helper()
	var page struct {
		Images []map[string]any `json:"images"`
	}
	o.ask(t, http.MethodGet, o.URL+"/v2/images?visibility=all", nil, &page)

	return page.Images
}

// File is the bytes of an image, read by a client of its own.
func (o *OpenStack) File(t testing.TB, id string) []byte {
	t.Helper()
	_, body := o.ask(t, http.MethodGet, o.URL+"/v2/images/"+id+"/file", nil, nil)

	return body
}

// CreateQueued makes the record of an image whose bytes never come, as a client that died leaves it.
func (o *OpenStack) CreateQueued(t testing.TB, properties map[string]any) string {
	t.Helper()
	var made struct {
		ID string `json:"id"`
	}
	o.ask(t, http.MethodPost, o.URL+"/v2/images", properties, &made)

	return made.ID
}

// ask makes a request with the admin's token and fails the test unless the answer is a success.
func (o *OpenStack) ask(t testing.TB, method, url string, question, answer any) (http.Header, []byte) {
	t.Helper()
	var body io.Reader
	if question != nil {
		text, err := json.Marshal(question)
		if err != nil {
			t.Fatal(err)
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if o.token != "" {
		request.Header.Set("X-Auth-Token", o.token)
		request.Header.Set("X-Subject-Token", o.token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= http.StatusMultipleChoices {
		t.Fatalf("%s %s: %s: %v\n%s", method, url, response.Status, err, tail(text))
	}
	if answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			t.Fatalf("%s %s: %v\n%s", method, url, err, tail(text))
		}
	}

	return response.Header, text
}
