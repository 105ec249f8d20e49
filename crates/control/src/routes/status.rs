//! `/v1/status`, `/v1/reload`.

use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use crate::admin::Admin;
use crate::api::{DiskInfo, QueueNumbers, StatusInfo};
use crate::error::{ApiError, ApiResult};

pub(super) async fn status(State(admin): State<Arc<Admin>>) -> axum::Json<StatusInfo> {
    let config = admin.config();
    let (listeners, certificates, mut problems) = match &admin.daemon {
        Some(daemon) => (daemon.listeners(), daemon.certificates(), daemon.problems()),
        None => (vec![], vec![], vec!["the daemon is not running; start it with `systemctl start pillarbox`".to_owned()]),
    };
    let disks: Vec<DiskInfo> = [&config.paths.state, &config.paths.mail].into_iter().filter_map(|p| disk(p)).collect();
    let mut queue = QueueNumbers::default();
    if let Some(health) = admin.queue.as_ref().map(|q| q.health()) {
        queue = QueueNumbers { messages: health.messages, recipients: health.recipients, oldest_seconds: health.oldest_seconds };
        problems.extend(
            health.journal.failed.map(|why| format!("the journal takes no mail ({why}); see to the disk, then restart the daemon")),
        );
        problems.extend(health.sync_error.map(|why| format!("stored mail cannot be made durable: {why}")));
        problems.extend(health.damaged.iter().map(|what| format!("damaged in the queue: {}", pillarbox_smtp::printable(what.as_bytes()))));
    }
    for disk in &disks {
        if disk.free_bytes < config.limits.free_space.bytes() {
            problems.push(format!("{} has only {} octets free; mail is refused with 452 until there is more", disk.path, disk.free_bytes));
        }
    }
    axum::Json(StatusInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        hostname: config.hostname(),
        running: admin.daemon.is_some(),
        listeners,
        queue,
        certificates,
        disks,
        sandbox: admin.daemon.as_ref().map(|daemon| daemon.sandbox()).unwrap_or_default(),
        healthy: problems.is_empty(),
        problems,
        notes: admin.daemon.as_ref().map(|daemon| daemon.notes()).unwrap_or_default(),
    })
}

pub(super) async fn reload(State(admin): State<Arc<Admin>>) -> ApiResult<StatusCode> {
    admin.daemon()?.reload().await.map_err(ApiError::refused)?;
    Ok(StatusCode::NO_CONTENT)
}

fn disk(path: &Path) -> Option<DiskInfo> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(DiskInfo {
        path: path.display().to_string(),
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}
