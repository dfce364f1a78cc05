-- How much of one sender and of one server waits for a device: origin is the
-- sender's domain, size that of the content in bytes. What waited before counts
-- for nobody's server.
ALTER TABLE mxc_to_device ADD COLUMN origin TEXT NOT NULL DEFAULT '';
ALTER TABLE mxc_to_device ADD COLUMN size BIGINT NOT NULL DEFAULT 0;
CREATE INDEX mxc_to_device_sender ON mxc_to_device (account, device, sender);
CREATE INDEX mxc_to_device_origin ON mxc_to_device (account, device, origin, size);
