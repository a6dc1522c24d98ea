package v1alpha1_test

func init() {
	ruleCases["XenSnapshot"] = map[string][]ruleCase{
		"instanceRef, type and disks are immutable: make another XenSnapshot": {
			{object: "xensnapshot", update: true, accept: `spec: {backoffLimit: 9}`, refuse: `spec: {instanceRef: {name: db}}`},
			{object: "xensnapshot", update: true, accept: `spec: {deadlineSeconds: null}`, refuse: `spec: {disks: All}`},
			{object: "xensnapshot-glance", update: true, accept: `spec: {keepLocal: Always}`, refuse: `spec: {disks: Root}`},
		},
		"destination is immutable: make another XenSnapshot": {
			{object: "xensnapshot", update: true, accept: `spec: {deletionPolicy: Retain}`, refuse: `spec: {destination: null}`},
			{object: "xensnapshot", update: true, accept: `spec: {ttlSecondsAfterFinished: null}`, refuse: `spec: {destination: {incrementalFrom: null}}`},
		},
		"type Memory captures all disks: memory and disks of different moments do not fit together": {
			{object: "xensnapshot-http", accept: `spec: {disks: All}`, refuse: `spec: {disks: Root}`},
		},
		"a Memory snapshot is uploaded in format XVA: the other formats hold disks alone": {
			{object: "xensnapshot-http", accept: `spec: {type: Disk, destination: {format: Raw}}`, refuse: `spec: {destination: {format: Raw}}`},
			{object: "xensnapshot-http", accept: `spec: {destination: null}`, refuse: `spec: {destination: {format: null}}`},
		},
		"exactly one destination must be set: s3, glance or http": {
			{object: "xensnapshot-glance", accept: `spec: {destination: {format: null}}`, refuse: `spec: {destination: {glance: null}}`},
			{object: "xensnapshot-glance", accept: `spec: {destination: null}`, refuse: `spec: {destination: {http: {urlTemplate: "https://a/{snapshot}/{file}"}}}`},
		},
		"incrementalFrom needs format VHD: the other formats hold whole disks": {
			{object: "xensnapshot", accept: `spec: {destination: {format: null}}`, refuse: `spec: {destination: {format: Raw}}`},
		},
		"incrementalFrom must name an earlier XenSnapshot, not this one": {
			{
				object: "xensnapshot", accept: `spec: {destination: {incrementalFrom: {snapshotRef: {name: another}}}}`,
				refuse: `{metadata: {name: itself}, spec: {destination: {incrementalFrom: {snapshotRef: {name: itself}}}}}`,
			},
		},
		"incrementalFrom is not for glance: an image there is a whole disk": {
			{
				object: "xensnapshot", accept: `spec: {destination: {s3: null, http: {urlTemplate: "https://a/{snapshot}/{file}"}}}`,
				refuse: `spec: {destination: {s3: null, glance: {endpoint: "https://a"}}}`,
			},
		},
		"compression must be None with format NovaTarball, which is compressed in itself, and with QCOW2, which is read in place": {
			{object: "xensnapshot", accept: `spec: {destination: {incrementalFrom: null, format: XVA}}`, refuse: `spec: {destination: {incrementalFrom: null, format: QCOW2}}`},
			{object: "xensnapshot", accept: `spec: {destination: {incrementalFrom: null, format: NovaTarball, compression: None}}`, refuse: `spec: {destination: {incrementalFrom: null, format: NovaTarball}}`},
		},
		"compression must be None with glance: images there are booted as they are": {
			{object: "xensnapshot-glance", accept: `spec: {destination: {compression: None}}`, refuse: `spec: {destination: {format: VHD, compression: Gzip}}`},
		},
		"glance needs endpoint or authSecretRef: the address of the image service, or a cloud that knows it": {
			{object: "xensnapshot-glance", accept: `spec: {destination: {glance: {endpoint: null}}}`, refuse: `spec: {destination: {glance: {endpoint: null, authSecretRef: null}}}`},
		},
		"a glance endpoint must be an http or https URL: no user, query or fragment": {
			{object: "xensnapshot-glance", accept: `spec: {destination: {glance: {endpoint: "http://a/image"}}}`, refuse: `spec: {destination: {glance: {endpoint: "https://a:b@c"}}}`},
		},
		"the name of a property has at most 255 characters": {
			{
				object: "xensnapshot-glance", accept: `spec: {destination: {glance: {properties: {"` + long(255) + `": a}}}}`,
				refuse: `spec: {destination: {glance: {properties: {"` + long(256) + `": a}}}}`,
			},
		},
		s3EndpointRule: {
			{object: "xensnapshot", accept: `spec: {destination: {s3: {endpoint: "http://a:9000/"}}}`, refuse: `spec: {destination: {s3: {endpoint: "http://a/b"}}}`},
		},
		"urlTemplate must be an http or https URL without a user: credentials belong in a Secret": {
			{
				object: "xensnapshot-http", accept: `spec: {destination: {http: {urlTemplate: "http://a/{snapshot}/{file}?x=@"}}}`,
				refuse: `spec: {destination: {http: {urlTemplate: "https://u:p@a/{snapshot}/{file}"}}}`,
			},
		},
		"the path of urlTemplate must contain {snapshot}: one snapshot's files must not replace another's": {
			{object: "xensnapshot-http", accept: `spec: {destination: {http: {urlTemplate: "https://a/{snapshot}-{file}"}}}`, refuse: `spec: {destination: {http: {urlTemplate: "https://a/{namespace}/{file}"}}}`},
			{object: "xensnapshot-http", accept: `spec: {destination: {http: {urlTemplate: "https://a/{snapshot}-{file}"}}}`, refuse: `spec: {destination: {http: {urlTemplate: "https://a/{file}?s={snapshot}"}}}`},
		},
		"the path of urlTemplate must end with {file}: a snapshot has several files, and a restore finds them beside the manifest": {
			{object: "xensnapshot-http", accept: `spec: {destination: {http: {urlTemplate: "https://a/{snapshot}/{file}"}}}`, refuse: `spec: {destination: {http: {urlTemplate: "https://a/{snapshot}"}}}`},
			{object: "xensnapshot-http", accept: `spec: {destination: {http: {urlTemplate: "https://a/{snapshot}-{file}?sas=x"}}}`, refuse: `spec: {destination: {http: {urlTemplate: "https://a/{file}/{snapshot}"}}}`},
		},
	}
}

const (
	s3EndpointRule = "an S3 endpoint must be an http or https URL of a bare host: no user, path, query or fragment"
	urlRule        = "url must be an http or https URL without a user: credentials belong in a Secret"
)

// fileCases show the rules of images that are imported from a file.
func fileCases(object string) map[string][]ruleCase {
	return map[string][]ruleCase{
		"source.http needs checksum: nothing else tells whether the file is the one that is meant": {
			{object: object + "-http", accept: `spec: {format: null}`, refuse: `spec: {checksum: null}`},
		},
		"checksum and format are of files: they need source.http, s3 or glance": {
			{object: object + "-s3", accept: `spec: {format: VHD}`, refuse: `spec: {source: {s3: null, existing: {vdiUUID: 8f80128c-ff30-4031-af96-0dd71289082c}}, format: VHD}`},
			{object: object + "-glance", accept: `spec: {format: Raw}`, refuse: `spec: {source: {glance: null, existing: {vdiUUID: 8f80128c-ff30-4031-af96-0dd71289082c}}, format: Raw}`},
		},
		"storageRepositories are for images that are imported: source.existing stays where it is": {
			{object: object + "-s3", accept: `spec: {pools: [{name: lab, storageRepositories: [fast]}]}`, refuse: `spec: {source: {s3: null, existing: {vdiUUID: 8f80128c-ff30-4031-af96-0dd71289082c}}, pools: [{name: lab, storageRepositories: [fast]}]}`},
		},
		"a SHA256 checksum has 64 hexadecimal digits, a SHA512 checksum 128": {
			{object: object + "-http", accept: `spec: {checksum: {algorithm: SHA512, value: "` + digits(128) + `"}}`, refuse: `spec: {checksum: {algorithm: SHA512}}`},
			{object: object + "-http", accept: `spec: {checksum: {value: "` + digits(64) + `"}}`, refuse: `spec: {checksum: {value: "` + digits(63) + `"}}`},
		},
		urlRule: {
			{object: object + "-http", accept: `spec: {source: {http: {url: "http://10.0.0.1/a@b"}}}`, refuse: `spec: {source: {http: {url: "https://user@a/b"}}}`},
			{object: object + "-http", accept: `spec: {source: {http: {url: "https://a"}}}`, refuse: `spec: {source: {http: {url: "file:///etc/passwd"}}}`},
		},
		s3EndpointRule: {
			{object: object + "-s3", accept: `spec: {source: {s3: {endpoint: "http://10.0.0.1:9000"}}}`, refuse: `spec: {source: {s3: {endpoint: "s3.example.org"}}}`},
			{object: object + "-s3", accept: `spec: {source: {s3: {endpoint: "https://a/"}}}`, refuse: `spec: {source: {s3: {endpoint: "https://u:p@a"}}}`},
		},
		"glance needs endpoint or authSecretRef: the address of the image service, or a cloud that knows it": {
			{object: object + "-glance", accept: `spec: {source: {glance: {authSecretRef: null}}}`, refuse: `spec: {source: {glance: {endpoint: null, authSecretRef: null}}}`},
		},
		"a glance endpoint must be an http or https URL: no user, query or fragment": {
			{object: object + "-glance", accept: `spec: {source: {glance: {endpoint: "http://a/image"}}}`, refuse: `spec: {source: {glance: {endpoint: "https://a?b"}}}`},
		},
	}
}
