/* A rival, one timestep at a time. Conversions of inputs and outputs are apart from the step, which alone is counted. */
#ifdef __cplusplus
extern "C" {
#endif
void rival_begin(void);
void rival_in(const float *x);
void rival_step(void);
void rival_out(float *y);
int rival_state(void); /* bytes of RAM that one stream and its scratch take, the stack left out */
#ifdef __cplusplus
}
#endif
