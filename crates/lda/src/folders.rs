//! A user's folders as one batch of deliveries sees them: opened once, and which of them a message goes to.

use std::sync::Arc;

use pillarbox_smtp::Mailbox;
use rustix::io::Errno;

use crate::maildir::{FolderName, MailRoot, MaildirHandle, Missing, StoreError, folder};

/// What is open of one user's mailbox.
pub(crate) struct Folders<'a> {
    root: &'a MailRoot,
    user: Mailbox,
    inbox: Option<Arc<MaildirHandle>>,
    named: Vec<(FolderName, Arc<MaildirHandle>)>,
    /// There is neither a quota nor a file that counts: found once, it holds for the batch.
    pub(crate) uncounted: bool,
}

impl<'a> Folders<'a> {
    pub(crate) fn new(root: &'a MailRoot, user: Mailbox) -> Self {
        Self { root, user, inbox: None, named: Vec::new(), uncounted: false }
    }

    /// The mailbox itself, created when it is missing.
    pub(crate) fn inbox(&mut self) -> Result<Arc<MaildirHandle>, StoreError> {
        if let Some(inbox) = &self.inbox {
            return Ok(Arc::clone(inbox));
        }
        let opened = self.root.inbox(&self.user, Missing::Create)?;
        let inbox = opened.ok_or_else(|| StoreError::errno("opening", self.user.to_string(), Errno::NOENT))?;
        self.inbox = Some(Arc::clone(&inbox));
        Ok(inbox)
    }

    /// Where a message goes: the junk folder, the folder that its address names if that exists, or the inbox.
    pub(crate) fn place(&mut self, junk: Option<&FolderName>, wish: &str) -> Result<Arc<MaildirHandle>, StoreError> {
        if let Some(junk @ FolderName::Named { file_name }) = junk {
            return match self.existing(junk)? {
                Some(handle) => Ok(handle),
                None => self.create(junk, file_name),
            };
        }
        if !wish.is_empty()
            && let Some(wished) = FolderName::new(wish)
            && let Some(handle) = self.existing(&wished)?
        {
            return Ok(handle);
        }
        self.inbox()
    }

    /// Forgets all that is open: the directories were removed or replaced meanwhile.
    pub(crate) fn reopen(&mut self) {
        let named = self.named.drain(..).map(|(_, handle)| handle);
        for handle in named.chain(self.inbox.take()) {
            self.root.forget(&handle.path);
        }
        self.uncounted = false;
    }

    fn existing(&mut self, folder: &FolderName) -> Result<Option<Arc<MaildirHandle>>, StoreError> {
        let FolderName::Named { file_name } = folder else { return self.inbox().map(Some) };
        if let Some((_, handle)) = self.named.iter().find(|(known, _)| known == folder) {
            return Ok(Some(Arc::clone(handle)));
        }
        let opened = self.root.folder(&self.user, file_name, Missing::Report)?;
        if let Some(handle) = &opened {
            self.named.push((folder.clone(), Arc::clone(handle)));
        }
        Ok(opened)
    }

    /// Creates a folder, only ever inside a mailbox that is one, and subscribes the user to it.
    fn create(&mut self, folder: &FolderName, file_name: &str) -> Result<Arc<MaildirHandle>, StoreError> {
        let inbox = self.inbox()?;
        let opened = self.root.folder(&self.user, file_name, Missing::Create)?;
        let handle = opened.ok_or_else(|| StoreError::errno("opening", file_name, Errno::NOENT))?;
        folder::mark(&handle)?;
        if let Err(error) = folder::subscribe(&inbox, folder) {
            tracing::warn!(user = %self.user, %error, "a new folder could not be subscribed");
        }
        self.named.push((folder.clone(), Arc::clone(&handle)));
        Ok(handle)
    }
}
