/** The pages of who is signed in, which are fetched together: they are small, and one leads to the next. */
export { Activities } from "./activity";
export { Delete, SignOut } from "./delete";
export { Documents } from "./documents";
export { Keys } from "./keys";
export { Overview } from "./overview";
export { Phones } from "./phones";
export { ProfilePage } from "./profile";
export { Security } from "./security";
export { Sessions } from "./sessions";
