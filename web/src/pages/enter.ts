/** The pages of strangers beside the sign-in, which are fetched together. */
export { Forgot, Reset } from "./forgot";
export { Confirmation, SignUp } from "./signup";
