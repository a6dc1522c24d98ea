package v1alpha1_test

func init() {
	ruleCases["XenConsole"] = map[string][]ruleCase{
		"instanceRef is immutable: make another XenConsole": {
			{object: "xenconsole", update: true, accept: `spec: {ttlSeconds: 60}`, refuse: `spec: {instanceRef: {name: db}}`},
		},
		"publicKey must be set exactly when access is EncryptedToken": {
			{object: "xenconsole-encrypted", accept: `spec: {mode: ViewOnly}`, refuse: `spec: {publicKey: null}`},
			{object: "xenconsole", accept: `spec: {access: URLToken}`, refuse: `spec: {publicKey: a key}`},
		},
		"a Text console is for client Browser: XVP and VNC viewers show screens": {
			{object: "xenconsole", accept: `spec: {type: Text, client: Browser}`, refuse: `spec: {type: Text}`},
		},
	}
}
