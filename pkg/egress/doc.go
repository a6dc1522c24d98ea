// Package egress decides where the operator may connect on a tenant's word. A tenant who names an endpoint must not
// make the operator reach what the tenant cannot: the node's own services, the cloud's metadata, the cluster's insides.
//
// The decision falls on the address that a connection is really made to, after names are resolved and for every
// redirect, so that a name which answers differently the second time gains nothing.
//
// It is not for endpoints that administrators name, such as those of a XenPool.
package egress
