package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of every kind in this package.
var GroupVersion = schema.GroupVersion{Group: "kubexen.io", Version: "v1alpha1"}

var schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

// AddToScheme registers the kinds of this package with a scheme.
var AddToScheme = schemeBuilder.AddToScheme

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&XenPool{}, &XenPoolList{},
		&XenFlavor{}, &XenFlavorList{},
		&XenImage{}, &XenImageList{},
		&XenClusterImage{}, &XenClusterImageList{},
		&XenInstance{}, &XenInstanceList{},
		&XenSnapshot{}, &XenSnapshotList{},
		&XenConsole{}, &XenConsoleList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)

	return nil
}
