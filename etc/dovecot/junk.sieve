# Files what Pillarbox marked as spam into the folder Junk, before the user's own script is asked.
require ["fileinto"];

if header :is "X-Spam-Flag" "YES" {
    fileinto "Junk";
    stop;
}
