use super::*;
use crate::relying::{MemberError, MemberFiles};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

const NOW: UnixTime = UnixTime(1_800_000_000);
const MODEL: ModelDigest = ModelDigest::from_bytes([7; 32]);

fn issue() -> Issue {
    Issue {
        member: "laptop".into(),
        cluster_id: "local".into(),
        models: vec![MODEL],
        life: 3600,
        salt_scope: SaltScope::Member,
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn created() -> (tempfile::TempDir, Tenant) {
    let dir = tempfile::tempdir().unwrap();
    let tenant = Tenant::at(dir.path(), "acme").unwrap();
    tenant.create().unwrap();
    (dir, tenant)
}

fn member(issued: &Issued, now: UnixTime) -> MemberFiles {
    MemberFiles::new(
        issued.credential.clone(),
        issued.member_key.clone(),
        "local".into(),
        Arc::new(move || now),
    )
}

#[test]
fn every_file_is_private() {
    let (dir, tenant) = created();
    let issued = tenant.issue(&issue(), NOW).unwrap();
    let token = tenant.token().unwrap();
    for path in [&issued.credential, &issued.member_key, &token.path, &tenant.root_key()] {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    assert_eq!(mode(&dir.path().join("acme")), 0o700);
    assert_eq!(mode(issued.credential.parent().unwrap()), 0o700);
}

#[test]
fn a_root_key_and_a_token_are_never_overwritten() {
    let (_dir, tenant) = created();
    let id = tenant.id().unwrap();
    assert!(matches!(tenant.create(), Err(TenantError::File(FileError::Exists(_)))));
    assert_eq!(tenant.id().unwrap(), id);
    let token = tenant.token().unwrap();
    let text = std::fs::read(&token.path).unwrap();
    assert!(matches!(tenant.token(), Err(TenantError::File(FileError::Exists(_)))));
    assert_eq!(std::fs::read(&token.path).unwrap(), text);
    assert_eq!(sha256(&text), token.sha256);
}

#[test]
fn a_root_key_open_to_others_is_refused() {
    let (_dir, tenant) = created();
    std::fs::set_permissions(tenant.root_key(), PermissionsExt::from_mode(0o644)).unwrap();
    assert!(matches!(tenant.id(), Err(TenantError::File(FileError::TooOpen { .. }))));
}

#[test]
fn an_issued_credential_makes_a_member() {
    let (_dir, tenant) = created();
    let issued = tenant.issue(&issue(), NOW).unwrap();
    let member = member(&issued, NOW).load().unwrap();
    assert_eq!(member.tenant(), tenant.id().unwrap());
    assert_eq!(member.tenant_ref, tenant.reference("local").unwrap());
    assert_eq!(member.not_after(), issued.not_after);
    assert!(member.check_model(&MODEL).is_ok());
    assert!(member.check_model(&ModelDigest::from_bytes([8; 32])).is_err());
}

#[test]
fn renewing_keeps_the_members_key() {
    let (_dir, tenant) = created();
    let first = tenant.issue(&issue(), NOW).unwrap();
    let files = member(&first, NOW);
    let before = files.current().unwrap();
    let second = tenant.issue(&issue(), NOW.plus(30)).unwrap();
    assert_eq!(second.member_key, first.member_key);
    let after = files.current().unwrap();
    assert_eq!(before.key.public(), after.key.public());
    assert_eq!(
        after.not_after(),
        before.not_after().plus(30),
        "the proxy sees the new one"
    );
}

#[test]
fn an_expired_or_foreign_credential_is_refused() {
    let (_dir, tenant) = created();
    let issued = tenant.issue(&issue(), NOW).unwrap();
    assert!(matches!(
        member(&issued, NOW.plus(3600)).load(),
        Err(MemberError::Credential { .. })
    ));
    let elsewhere = MemberFiles::new(
        issued.credential.clone(),
        issued.member_key.clone(),
        "elsewhere".into(),
        Arc::new(|| NOW),
    );
    assert!(matches!(elsewhere.load(), Err(MemberError::Credential { .. })));
    let other = tenant
        .issue(
            &Issue {
                member: "other".into(),
                ..issue()
            },
            NOW,
        )
        .unwrap();
    let mixed = Issued {
        member_key: other.member_key,
        ..issued.clone()
    };
    assert!(matches!(member(&mixed, NOW).load(), Err(MemberError::OtherKey { .. })));
    std::fs::set_permissions(&issued.member_key, PermissionsExt::from_mode(0o640)).unwrap();
    assert!(member(&issued, NOW).load().is_ok(), "the group may read");
    std::fs::set_permissions(&issued.member_key, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(matches!(member(&issued, NOW).load(), Err(MemberError::File(_))));
}

#[test]
fn claims_out_of_bounds_are_refused() {
    let (_dir, tenant) = created();
    for wrong in [
        Issue { life: 3601, ..issue() },
        Issue {
            life: BACKDATED,
            ..issue()
        },
        Issue {
            models: Vec::new(),
            ..issue()
        },
        Issue {
            models: vec![MODEL; 65],
            ..issue()
        },
        Issue {
            cluster_id: String::new(),
            ..issue()
        },
        Issue {
            cluster_id: "x".repeat(129),
            ..issue()
        },
    ] {
        assert!(
            matches!(tenant.issue(&wrong, NOW), Err(TenantError::Claims(_))),
            "{wrong:?}"
        );
    }
    let named = Issue {
        member: "../up".into(),
        ..issue()
    };
    assert!(matches!(tenant.issue(&named, NOW), Err(TenantError::Name(_))));
}

#[test]
fn names_are_plain() {
    let dir = Path::new("/nowhere");
    for name in ["", ".", "..", "a/b", "A", "-a", "a b", "ä", &"a".repeat(64)] {
        assert!(matches!(Tenant::at(dir, name), Err(TenantError::Name(_))), "{name:?}");
    }
    assert!(Tenant::at(dir, "acme-1").is_ok());
}

#[test]
fn what_is_not_there_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = Tenant::at(dir.path(), "ghost").unwrap();
    assert!(matches!(tenant.id(), Err(TenantError::NotFound(_))));
    assert!(matches!(tenant.token(), Err(TenantError::NotFound(_))));
    assert!(matches!(tenant.issue(&issue(), NOW), Err(TenantError::NotFound(_))));
}
