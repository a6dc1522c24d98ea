package main

// handwritten are messages that pkg/xenapi speaks itself, or hides because they would pull the session from under it.
var handwritten = map[string]bool{
	"session.logout": true, "session.local_logout": true, "session.login_with_password": true, "session.slave_local_login_with_password": true,
	"session.change_password": true, "session.create_from_db_file": true, "event.from": true, "event.next": true, "event.register": true, "event.unregister": true,
	"SR.probe_ext":        true, // its result holds optional values, a type that no other message has; Client.Call reaches it
	"host.shutdown_agent": true,
}

// withoutAsync are classes and messages that the server answers only directly (flags `Session in the data model's source).
var withoutAsync = map[string]bool{
	"session": true, "event": true, "message": true, "task.set_status": true, "task.set_progress": true, "task.set_result": true, "task.set_error_info": true,
	"VM.forget_data_source_archives": true, "VM.query_data_source": true, "VM.record_data_source": true,
	"host.forget_data_source_archives": true, "host.query_data_source": true, "host.record_data_source": true, "SR.forget_data_source_archives": true,
	"SR.query_data_source": true, "SR.record_data_source": true, "host.call_extension": true, "host.list_methods": true, "host.backup_rrds": true,
	"host.sync_data": true, "host.enable_external_auth": true, "host.disable_external_auth": true, "host.apply_edition": true, "host.enable_local_storage_caching": true,
	"host.disable_local_storage_caching": true, "host.external_auth_set_ldaps": true, "host.set_cpu_features": true, "host.reset_cpu_features": true, "host.set_hostname_live": true,
	"host.local_management_reconfigure": true, "host.management_disable": true,
	"pool.ha_prevent_restarts_for": true, "pool.ha_failover_plan_exists": true, "pool.ha_compute_max_host_failures_to_tolerate": true,
	"pool.ha_compute_hypothetical_max_host_failures_to_tolerate": true, "pool.ha_compute_vm_failover_plan": true, "pool.enable_external_auth": true,
	"pool.disable_external_auth": true, "pool.detect_nonhomogeneous_external_auth": true, "pool.external_auth_set_ldaps": true, "pool.test_archive_target": true,
	"pool.enable_tls_verification": true, "pool.set_local_auth_max_threads": true, "pool.set_ext_auth_max_threads": true,
}

// optionalParams have a default on the server (param_default in the data model's source). Those at the end of a call are left out when they
// are zero: older servers do not know them and count.
var optionalParams = map[string]bool{
	"VM.assert_can_migrate.vgpu_map": true, "VM.migrate_send.vgpu_map": true, "VM.migrate_send.vdi_format_map": true, "VM.snapshot.ignore_vdis": true,
	"VDI.clone.driver_params": true, "VDI.snapshot.driver_params": true, "VDI.copy.sr": true, "VDI.copy.base_vdi": true, "VDI.copy.into_vdi": true,
	"VIF.configure_ipv4.address": true, "VIF.configure_ipv4.gateway": true, "VIF.configure_ipv6.address": true, "VIF.configure_ipv6.gateway": true,
	"host.apply_edition.force": true, "host.disable.auto_enable": true, "host.disable_external_auth.config": true, "host.disable_external_auth.force": true,
	"pool.disable_external_auth.config": true, "host.evacuate.network": true, "host.evacuate.evacuate_batch_size": true, "host.external_auth_set_ldaps.force": true,
	"pool.external_auth_set_ldaps.force": true, "host.install_server_certificate.certificate_chain": true, "pool.sync_updates.token": true,
	"pool.sync_updates.token_id": true, "pool.sync_updates.username": true, "pool.sync_updates.password": true, "pool.uninstall_ca_certificate.force": true,
	"pool.create_new_blob.public": true, "host.create_new_blob.public": true, "SR.create_new_blob.public": true, "network.create_new_blob.public": true,
	"VM.create_new_blob.public": true,
}

// trueByDefault are optional parameters that a server takes for true when they are missing.
var trueByDefault = map[string]bool{"host.disable.auto_enable": true}

// alwaysSent are fields that create sends although the server has a default, because their zero value means something else than that default
// and is what most callers want.
var alwaysSent = map[string]bool{"VM.has_vendor_device": true}
