package imagestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
)

// GlanceOptions says which image service.
type GlanceOptions struct {
	// Endpoint of the image service without /v2; empty takes the one in the cloud's catalog.
	Endpoint string
	// Cloud that issues tokens; nil sends none.
	Cloud *Cloud
	// ImageID is the image that the empty name means.
	ImageID string
	// Place sets the images that are made here apart from all others in the service; names are relative to it.
	Place   string
	Network Network
}

// objectProperty is the property of an image that holds the name that it was created under. Glance takes any number of
// images of the same name, so the name alone finds nothing again.
const objectProperty = "kubexen_object"

// placeProperty is the property of an image that holds the place that it was created at.
const placeProperty = "kubexen_place"

// Glance is an OpenStack image service.
type Glance struct {
	options GlanceOptions
	http    *http.Client

	mu     sync.Mutex
	client *gophercloud.ServiceClient // after the first use
}

var _ Store = (*Glance)(nil)

// NewGlance makes no request yet; its error is of kind Invalid or Forbidden.
func NewGlance(options GlanceOptions) (*Glance, error) {
	g := &Glance{options: options}
	if options.Endpoint == "" && options.Cloud == nil {
		return nil, g.wrong(Invalid, errors.New("neither an endpoint nor a cloud is given"))
	}
	for _, endpoint := range []string{options.Endpoint, g.identity()} {
		if endpoint == "" {
			continue
		}
		if err := options.Network.checkURL(endpoint); err != nil {
			return nil, g.wrong(Forbidden, err)
		}
	}
	client, err := options.Network.client()
	if err != nil {
		return nil, g.wrong(Invalid, err)
	}
	g.http = client

	return g, nil
}

func (g *Glance) identity() string {
	if g.options.Cloud == nil {
		return ""
	}

	return g.options.Cloud.Auth.IdentityEndpoint
}

func (g *Glance) wrong(kind Kind, err error) error {
	return &Error{Kind: kind, Op: "use", Target: g.Location(""), Err: err}
}

// Location implements Store.
func (g *Glance) Location(name string) string {
	base := strings.TrimSuffix(first(g.options.Endpoint, g.identity()), "/")
	switch {
	case name != "":
		return base + "/v2/images?" + url.Values{objectProperty: {name}}.Encode()
	case g.options.ImageID != "":
		return base + "/v2/images/" + g.options.ImageID
	default:
		return base
	}
}

// service logs in at the first use.
func (g *Glance) service(ctx context.Context) (*gophercloud.ServiceClient, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.client != nil {
		return g.client, nil
	}
	provider := &gophercloud.ProviderClient{}
	if g.options.Cloud != nil {
		var err error
		if provider, err = openstack.NewClient(g.identity()); err != nil {
			return nil, g.wrong(Invalid, err)
		}
	}
	provider.HTTPClient = *g.http
	if g.options.Cloud != nil {
		if err := openstack.Authenticate(ctx, provider, g.options.Cloud.Auth); err != nil {
			return nil, g.wrapAt(ctx, "log in at", g.identity(), err)
		}
	}
	client := &gophercloud.ServiceClient{ProviderClient: provider, Type: "image", Endpoint: strings.TrimSuffix(g.options.Endpoint, "/") + "/"}
	if g.options.Endpoint == "" {
		var err error
		if client, err = openstack.NewImageV2(provider, g.options.Cloud.Endpoint); err != nil {
			return nil, g.wrong(Invalid, fmt.Errorf("the cloud's catalog has no image service for us: %w", err))
		}
		if err := g.options.Network.checkURL(client.Endpoint); err != nil {
			return nil, g.wrong(Forbidden, err)
		}
	}
	client.ResourceBase = strings.TrimSuffix(client.Endpoint, "v2/") + "v2/" // people and catalogs write it either way
	g.client = client

	return client, nil
}

// glanceImage is what Glance says of an image; what it has no word for here is a property.
type glanceImage struct {
	ID              string   `json:"id"`
	Name            string   `json:"name"`
	Status          string   `json:"status"`
	Size            *int64   `json:"size"`
	DiskFormat      string   `json:"disk_format"`
	ContainerFormat string   `json:"container_format"`
	MinDisk         int      `json:"min_disk"`
	MinRAM          int      `json:"min_ram"`
	Checksum        string   `json:"checksum"`
	HashAlgorithm   string   `json:"os_hash_algo"`
	HashValue       string   `json:"os_hash_value"`
	Tags            []string `json:"tags"`
	Object          string   `json:"kubexen_object"`
	properties      map[string]string
}

// UnmarshalJSON implements json.Unmarshaler.
func (i *glanceImage) UnmarshalJSON(data []byte) error {
	type plain glanceImage
	if err := json.Unmarshal(data, (*plain)(i)); err != nil {
		return err
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	i.properties = map[string]string{}
	for name, value := range all {
		if text, isText := value.(string); isText {
			i.properties[name] = text
		}
	}
	for _, own := range []string{
		"id", "name", "status", "disk_format", "container_format", "checksum", "os_hash_algo", "os_hash_value", "visibility", "owner",
		"created_at", "updated_at", "self", "file", "schema", "direct_url", "stores", objectProperty, placeProperty,
	} {
		delete(i.properties, own)
	}

	return nil
}

func (i *glanceImage) object() Object {
	object := Object{
		Size: -1, Name: i.Object, ID: i.ID, Version: i.ID, Digests: Digests{MD5: i.Checksum}, // the bytes of an image never change
		Image: &ImageRecord{
			Name: i.Name, DiskFormat: i.DiskFormat, ContainerFormat: i.ContainerFormat, MinDiskGiB: i.MinDisk, MinMemoryMiB: i.MinRAM,
			Properties: i.properties, Tags: i.Tags,
		},
	}
	if i.Size != nil {
		object.Size = *i.Size
	}
	switch i.HashAlgorithm {
	case "sha256":
		object.Digests.SHA256 = i.HashValue
	case "sha512":
		object.Digests.SHA512 = i.HashValue
	}

	return object
}

// statusActive is the status of an image whose bytes are complete.
const statusActive = "active"

// Stat implements Store.
func (g *Glance) Stat(ctx context.Context, name string) (Object, error) {
	image, err := g.active(ctx, name)
	if err != nil {
		return Object{}, err
	}

	return image.object(), nil
}

func (g *Glance) active(ctx context.Context, name string) (*glanceImage, error) {
	found := []glanceImage{}
	if name == "" {
		image, err := g.get(ctx, g.options.ImageID)
		if err != nil {
			return nil, err
		}
		found = append(found, *image)
	} else {
		var err error
		if found, err = g.find(ctx, name); err != nil {
			return nil, err
		}
	}
	for i := range found {
		if found[i].Status == statusActive {
			return &found[i], nil
		}
	}
	why := errors.New("there is no such image")
	if len(found) > 0 {
		why = fmt.Errorf("the image is %s, not active", found[0].Status)
	}

	return nil, &Error{Kind: NotFound, Op: "look at", Target: g.Location(name), Err: why}
}

func (g *Glance) get(ctx context.Context, id string) (*glanceImage, error) {
	image := &glanceImage{}
	err := g.call(ctx, "look at", "images/"+url.PathEscape(id), func(client *gophercloud.ServiceClient, address string) error {
		_, err := client.Get(ctx, address, image, nil) //nolint:bodyclose // gophercloud has closed it
		return err
	})

	return image, err
}

// mostImages is more than a snapshot has disks; Glance gives no more at a time.
const mostImages = "1000"

// List returns the complete images at the place, with their names.
func (g *Glance) List(ctx context.Context) ([]Object, error) {
	if g.options.Place == "" {
		return nil, g.wrong(Invalid, errors.New("it has no place of its own in the service"))
	}
	found, err := g.find(ctx, "")
	if err != nil {
		return nil, err
	}
	var objects []Object
	for i := range found {
		if found[i].Status == statusActive {
			objects = append(objects, found[i].object())
		}
	}

	return objects, nil
}

// find lists our own images of a name, or all at the place, whatever their status: what others share with us is never
// ours.
func (g *Glance) find(ctx context.Context, name string) ([]glanceImage, error) {
	page := struct {
		Images []glanceImage `json:"images"`
	}{}
	query := url.Values{"limit": {mostImages}, "visibility": {"private"}, "sort_key": {"created_at"}, "sort_dir": {"desc"}}
	for property, value := range map[string]string{objectProperty: name, placeProperty: g.options.Place} {
		if value != "" {
			query.Set(property, value)
		}
	}
	err := g.call(ctx, "find", "images?"+query.Encode(), func(client *gophercloud.ServiceClient, address string) error {
		_, err := client.Get(ctx, address, &page, nil) //nolint:bodyclose // gophercloud has closed it
		return err
	})

	return page.Images, err
}

// call makes one request below the service's /v2/.
func (g *Glance) call(ctx context.Context, op, path string, do func(client *gophercloud.ServiceClient, address string) error) error {
	client, err := g.service(ctx)
	if err != nil {
		return err
	}
	address := client.ResourceBase + path

	return g.wrapAt(ctx, op, address, do(client, address))
}

// Open implements Store.
func (g *Glance) Open(ctx context.Context, name string, object Object, offset, length int64) (io.ReadCloser, error) {
	if length == 0 {
		return io.NopCloser(strings.NewReader("")), nil
	}
	id := object.ID
	if id == "" {
		image, err := g.active(ctx, name)
		if err != nil {
			return nil, err
		}
		id = image.ID
	}
	var response *http.Response
	err := g.call(ctx, "read", "images/"+url.PathEscape(id)+"/file", func(client *gophercloud.ServiceClient, address string) (err error) {
		headers := map[string]string{"Accept": "application/octet-stream"}
		if ranged := rangeHeader(offset, length); ranged != "" {
			headers["Range"] = ranged
		}
		response, err = client.Get(whole(ctx), address, nil, &gophercloud.RequestOpts{ //nolint:bodyclose // the caller of Open closes it
			MoreHeaders: headers, KeepResponseBody: true, OkCodes: []int{http.StatusOK, http.StatusPartialContent, http.StatusNoContent},
		})
		return err
	})
	if err != nil {
		return nil, err
	}

	return ranged(ctx, response, "read", g.Location(name), object.Size, offset, length)
}

// rangeHeader asks for a part, or is empty for the whole.
func rangeHeader(offset, length int64) string {
	switch {
	case length >= 0:
		return fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)
	case offset > 0:
		return fmt.Sprintf("bytes=%d-", offset)
	default:
		return ""
	}
}

// ranged holds an answer against what was asked for. A server that sends the whole is taken when the beginning was
// wanted.
func ranged(ctx context.Context, response *http.Response, op, target string, size, offset, length int64) (io.ReadCloser, error) {
	left := response.ContentLength
	switch {
	case response.StatusCode == http.StatusPartialContent:
		var first, last int64
		if _, err := fmt.Sscanf(response.Header.Get("Content-Range"), "bytes %d-%d/", &first, &last); err != nil || first != offset {
			_ = response.Body.Close() // nothing was read of it
			return nil, &Error{Kind: NoRanges, Op: op, Target: target, Err: fmt.Errorf("bytes from %d on were wanted, the answer is %q", offset, response.Header.Get("Content-Range"))}
		}
		left = last - first + 1
		if length >= 0 && left > length {
			left = length
		}
	case offset > 0:
		_ = response.Body.Close() // nothing was read of it
		return nil, &Error{Kind: NoRanges, Op: op, Target: target, Err: errors.New("the server does not read from an offset")}
	case left < 0 && size >= 0:
		left = size
	}
	body := &download{ctx: ctx, body: response.Body, op: op, target: target, left: left}
	if length >= 0 && (left < 0 || left > length) {
		return limited{io.LimitReader(body, length), body}, nil
	}

	return body, nil
}

// limited ends a body that is longer than what was wanted.
type limited struct {
	io.Reader
	io.Closer
}

// Remove implements Store.
func (g *Glance) Remove(ctx context.Context, name string) error {
	if name == "" {
		return &Error{Kind: Invalid, Op: "delete", Target: g.Location(name), Err: errors.New("an image that was not made here is never deleted")}
	}

	return g.removeWhere(ctx, name, func(*glanceImage) bool { return true })
}

func (g *Glance) removeWhere(ctx context.Context, name string, which func(*glanceImage) bool) error {
	found, err := g.find(ctx, name)
	if err != nil {
		return err
	}
	for i := range found {
		if which(&found[i]) {
			if err := g.delete(ctx, found[i].ID); err != nil {
				return err
			}
		}
	}

	return nil
}

func (g *Glance) delete(ctx context.Context, id string) error {
	err := g.call(ctx, "delete", "images/"+url.PathEscape(id), func(client *gophercloud.ServiceClient, address string) error {
		_, err := client.Delete(ctx, address, nil) //nolint:bodyclose // gophercloud has closed it
		return err
	})
	if KindOf(err) == NotFound {
		return nil
	}

	return err
}

// create makes the record of an image; it is queued until its bytes come.
func (g *Glance) create(ctx context.Context, name string, record ImageRecord) (*glanceImage, error) {
	body := map[string]any{}
	for property, value := range record.Properties {
		body[property] = value
	}
	maps.Copy(body, map[string]any{
		"name": record.Name, "disk_format": record.DiskFormat, "container_format": record.ContainerFormat, "visibility": "private",
		"min_disk": record.MinDiskGiB, "min_ram": record.MinMemoryMiB, objectProperty: name,
	})
	if g.options.Place != "" {
		body[placeProperty] = g.options.Place
	}
	if len(record.Tags) > 0 {
		body["tags"] = record.Tags
	}
	image := &glanceImage{}
	err := g.call(ctx, "create", "images", func(client *gophercloud.ServiceClient, address string) error {
		_, err := client.Post(ctx, address, body, image, nil) //nolint:bodyclose // gophercloud has closed it
		return err
	})

	return image, err
}

func (g *Glance) wrapAt(ctx context.Context, op, target string, err error) error {
	var response gophercloud.ErrUnexpectedResponseCode
	if err == nil || !errors.As(err, &response) || ctx.Err() != nil {
		return wrap(ctx, op, target, err)
	}
	text := strings.Join(strings.Fields(plain(string(response.Body))), " ")
	if len(text) > wordsOf {
		text = text[:wordsOf]
	}
	e := &Error{
		Kind: kindOfStatus(response.Actual), Op: op, Target: target, Status: response.Actual, RetryAfter: retryAfter(response.ResponseHeader),
		Err: errors.New(first(text, strconv.Itoa(response.Actual))),
	}
	if response.Actual == http.StatusRequestEntityTooLarge { // Glance's word for a store or a quota that is full
		e.Kind = Full
	}

	return e
}

// plain takes the tags out of the HTML in which OpenStack explains itself.
func plain(text string) string {
	var words strings.Builder
	for i, piece := range strings.Split(text, "<") {
		if _, after, closed := strings.Cut(piece, ">"); closed && i > 0 {
			piece = " " + after
		}
		words.WriteString(piece)
	}

	return words.String()
}
